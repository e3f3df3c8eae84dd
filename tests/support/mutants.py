"""A kernel module with one line changed, for tests that must then fail."""

import importlib
import importlib.util
import itertools
import sys
from pathlib import Path

_COUNT = itertools.count()


def mutant(name: str, module: str, edit: tuple[str, str], path):
    source = Path(importlib.import_module(module).__file__).read_text()
    old, new = edit
    assert source.count(old) >= 1, f"{name}: the text to mutate is gone from {module}"
    file = path / f"{module.split('.')[-1]}.py"
    source = source.replace(old, new, 1) if old else source
    file.write_text(source.replace('"tracelift::', f'"mutant{next(_COUNT)}::'))  # operators of its own, not ours anew
    package, _, last = module.rpartition(".")  # a sibling of the real one, so that what it imports relatively is found
    spec = importlib.util.spec_from_file_location(".".join(filter(None, (package, f"mutant_{last}"))), file)
    made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(made)
    return made
