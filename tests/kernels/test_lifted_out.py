"""kernels/ under another name, and beside Hugging Face's package of the same name as transformers sees it."""

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCORE = """
import torch
x, h, w, y = torch.randn(3, 40), torch.randn(3, 8, requires_grad=True), torch.randn(40, 8), torch.tensor([0, 1, 2])
assert k.logprob_kl(x, y, x, backend={backend!r}).kl.shape == (3,)
k.linear_logprob(h, w, y).logprob.sum().backward()
k.linear_loss(h, w, y, lambda s: s.logprob.sum())[0].backward()
assert k.sharded_logprob_kl and not hasattr(k, "Mode") and "kernels" not in sys.modules
"""


def python(code: str, *path: Path, **env: str) -> str:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "TRITON_INTERPRET": "1", **env}
    result = subprocess.run([sys.executable, "-c", code], cwd=path[0], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_copy_works_under_any_name(tmp_path):
    """The three lines of docs/kernels.md: copy, rename, import; two copies do not get in each other's way."""
    code = ""
    for name, backend in (("tracelift_kernels", "triton"), ("vendor.kernels", "torch")):
        folder = tmp_path / name.replace(".", "/")
        shutil.copytree(ROOT / "kernels", folder, ignore=shutil.ignore_patterns("__pycache__"))
        code += f"import sys, {name} as k\n" + SCORE.format(backend=backend)
    python(code, tmp_path)


STUB = """
class {name}:
    def __init__(self, *args, **options):
        pass

    def __call__(self, decorated):
        return decorated
"""
INIT = """
from .layer import Mode
from kernels.layer import LayerRepository  # by its own name, as well as relatively
{names}
def get_kernel(*args, **options):
    raise FileNotFoundError("no hub here")
__version__ = "0.18.2"
"""


def asked_for() -> set[str]:
    """The names that the installed transformers imports from the package; some, where it is not installed."""
    spec = importlib.util.find_spec("transformers")
    if spec is None or spec.origin is None:
        return {"Device", "kernelize"}
    tree = ast.parse((Path(spec.origin).parent / "integrations/hub_kernels.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "kernels"]
    return {alias.name for node in imports for alias in node.names}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages that holds one called kernels, in a release that transformers takes."""
    site = tmp_path_factory.mktemp("site")
    (site / "kernels-0.18.2.dist-info").mkdir()
    (site / "kernels-0.18.2.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.2\n")
    (site / "kernels").mkdir()
    wanted = asked_for() - {"Mode", "LayerRepository", "get_kernel"}
    stub = "\n".join(STUB.format(name=name) for name in sorted(wanted))
    (site / "kernels/__init__.py").write_text(INIT.format(names=stub))
    (site / "kernels/layer.py").write_text(
        "class LayerRepository:\n    def __init__(self, *args, **options):\n        pass\n\n\n"
        "class Mode:\n    INFERENCE = TRAINING = 0\n"
    )
    return site


def test_names_of_the_namesake_are_found_behind_ours(site):
    told = python(
        "import kernels\n"
        "from kernels import get_kernel, Mode, LayerRepository, logprob_kl\n"
        "import kernels.layer, kernels.linear\n"
        "assert kernels.layer.Mode is Mode and logprob_kl.__module__ == 'kernels.logits'\n"
        "assert kernels.linear.__file__.startswith(str(__import__('pathlib').Path.cwd()))\n"
        "print(hasattr(kernels, 'no_such_name'), kernels.__file__)",
        ROOT,
        site,
    )
    assert told.split() == ["False", str(ROOT / "kernels/__init__.py")]


def test_without_a_namesake_a_missing_name_is_an_error(tmp_path):
    told = python(
        "import kernels\ntry:\n    kernels.Mode\nexcept AttributeError as error:\n    print(error)", ROOT, tmp_path
    )
    assert "module 'kernels' has no attribute 'Mode'" in told


def test_transformers_imports_with_the_namesake_installed(site):
    pytest.importorskip("transformers")
    told = python(
        "from transformers.utils.import_utils import is_kernels_available\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "import kernels, torch\n"
        "s = kernels.logprob_kl(torch.zeros(1, 4), torch.tensor([1]))\n"
        "print(is_kernels_available(), LlamaForCausalLM.__name__, float(s.entropy))",
        ROOT,
        site,
    )
    assert told.split()[:2] == ["True", "LlamaForCausalLM"]
