"""What README, docs/ and the other documents mention exists: files, functions, config keys, links, commands and their options.

A check is a function from a text (and its path) to complaints, so that it is tried on the real documents and on made-up
texts with the fault. Names of source are looked up with ast; commands are asked for `--help`. Left out: whether what a
document says is true.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tracelift.config.load import REMOVED
from tracelift.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))),
]
PACKAGES = ("kernels", "models", "tracelift", "benchmarks", "examples")
SCRIPTS = ("train.py", "eval.py")
OTHERS = {"pytest", "pip"}  # `python -m` of these is not ours to check
ENDINGS = "py|md|toml|json|jsonl|png|html|cff|txt"
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}(?=\.(?!md|cff))")  # benchmarks/NAME.py
TEXT = {".py", ".md", ".toml", ".cff", ".html", ".txt", ""}
NOT_OURS = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", ".triton"}


def read(path: str) -> str:
    """A document; of the changelog, what is there now: without the first column of its tables, which holds old names."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE) if path == "CHANGELOG.md" else text


def code_of(text: str) -> list[str]:
    """Inline code, and the lines of code blocks, continued lines joined."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join([*fenced, *re.findall(r"^(?: {4,8})(?![-*] |\d+\. )(\S.*)$", rest, re.MULTILINE)])
    joined = re.sub(r"\\\n\s*", " ", lines)
    inline = [" ".join(c.split()) for c in re.findall(r"(?<!`)`([^`]+)`(?!`)", rest)]
    return [*inline, *joined.splitlines()]


# -- names of source ---------------------------------------------------------------------------------------------------


@cache
def files() -> frozenset[str]:
    """Every file of the repository that is not made by running it."""
    found = set()
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [f for f in folders if f not in NOT_OURS and Path(folder, f) != ROOT / "runs"]
        found |= {(Path(folder) / name).relative_to(ROOT).as_posix() for name in names if name != ".git"}
    return frozenset(found)


@cache
def names_of(path: str) -> frozenset[str]:
    """What a module defines or imports: functions, classes, their methods and fields, constants, arguments left out."""

    def walk(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                yield prefix + node.name
                if isinstance(node, ast.ClassDef):
                    yield from walk(node.body, f"{prefix}{node.name}.")
                elif node.name == "__init__":
                    targets = (
                        t
                        for n in ast.walk(node)
                        if isinstance(n, ast.Assign | ast.AnnAssign)
                        for t in (n.targets if isinstance(n, ast.Assign) else [n.target])
                    )
                    yield from (prefix + t.attr for t in targets if isinstance(t, ast.Attribute))
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (prefix + n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from (prefix + (a.asname or a.name) for a in node.names)

    return frozenset(walk(ast.parse((ROOT / path).read_text(encoding="utf-8")).body))


def module_file(module: str) -> str | None:
    path = module.replace(".", "/")
    return next((p for p in (f"{path}.py", f"{path}/__init__.py") if p in files()), None)


def is_name(dotted: str) -> bool:
    """Whether a dotted name is a module, or a name (or a class's name) in one."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        if path := module_file(".".join(parts[:cut])):
            return cut == len(parts) or ".".join(parts[cut:]) in names_of(path)
    return False


@cache
def keys() -> frozenset[str]:
    """section.key for every key of the config."""
    config = Config()
    sections = {s.name: getattr(config, s.name) for s in dataclasses.fields(config)}
    return frozenset(f"{name}.{k.name}" for name, s in sections.items() for k in dataclasses.fields(s))


# -- the checks: a text → what is wrong with it ------------------------------------------------------------------------


def missing_files(text: str, at: str) -> list[str]:
    """Paths below a folder of the repository (a pattern or a folder counts), and bare names of Python and Markdown files."""
    tops = {f.split("/")[0] for f in files() if "/" in f} | {"examples"}
    complaints = []
    for path in re.findall(rf"(?<![\w/.:<-])((?:\.?\w[\w-]*/)+(?:[\w.*-]*\.(?:{ENDINGS})\b)?)", text):
        if path.split("/")[0] not in tops or PLACEHOLDER.search(path):
            continue
        there = any(Path(f).match(path) for f in files()) if "*" in path else path in files()
        if not there and not any(f.startswith(path.rstrip("/") + "/") for f in files()):
            complaints.append(f"{at}: {path} is not there")
    ends = re.findall(r"(?<![\w/.*-])((?:[\w-]+/)*[\w-]+\.(?:py|md|toml|cff))(?![\w/])", text)
    known = {f"/{f}" for f in files()}
    lost = [end for end in ends if not PLACEHOLDER.search(end) and not any(f.endswith(f"/{end}") for f in known)]
    return complaints + [f"{at}: there is no file called {end}" for end in lost]


METHOD = re.compile(r"(?<![\w./])([A-Z]\w*[a-z]\w*\.[a-z_]\w*)\b")  # Class.name


def unknown_method(name: str) -> bool:
    """Whether the source has the class and not this name in it."""
    owners = [names_of(f) for f in files() if f.endswith(".py") and f.split("/")[0] in (*PACKAGES, *SCRIPTS)]
    return any(name.split(".")[0] in names for names in owners) and not any(name in names for names in owners)


def missing_names(text: str, at: str) -> list[str]:
    """`file: name` pairs, and dotted names that begin with a package, a script or a section of the config."""
    complaints = []
    for code in code_of(text):
        if pair := re.fullmatch(r"([\w/-]+\.py): (.+)", code):
            known = names_of(pair[1]) if pair[1] in files() else ()
            wanted = [re.sub(r"\(.*", "", name).strip() for name in pair[2].split(", ")]
            complaints += [f"{at}: {pair[1]} has no {name}" for name in wanted if name not in known]
        for dotted in re.findall(r"(?<![\w./-])([a-z_]+(?:\.(?!py\b)\w+)+)(?![\w/]|\.\w)", code):
            top = dotted.split(".")[0]
            section = any(key.startswith(f"{top}.") for key in keys())
            named = top in PACKAGES or f"{top}.py" in SCRIPTS
            if (section or named) and dotted not in keys() | {*REMOVED, "section.key"} and not is_name(dotted):
                complaints.append(f"{at}: {dotted} is neither a key nor a name of the source")
        complaints += [f"{at}: no class has {name}" for name in METHOD.findall(code) if unknown_method(name)]
    return complaints


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get where it is shown."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(text: str, at: str) -> list[str]:
    complaints = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        whole = os.path.normpath(f"{os.path.dirname(at)}/{path}".lstrip("/")) if path else at
        if whole not in files() and not any(f.startswith(whole + "/") for f in files()):
            complaints.append(f"{at}: the link to {target} leads nowhere")
        elif anchor and anchor not in anchors((ROOT / whole).read_text(encoding="utf-8") if path else text):
            complaints.append(f"{at}: {whole} has no heading #{anchor}")
    return complaints


def missing_targets(text: str, at: str) -> list[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = [name for code in code_of(text) for name in re.findall(r"\bmake ([a-z][a-z-]*)", code)]
    return [f"{at}: make {name} is no target" for name in asked if name not in targets]


Command = tuple[str, ...]


def commands(text: str) -> list[tuple[Command, list[str]]]:
    """(what runs, its words) for every mention of `python -m MODULE …` and `[python|torchrun …] SCRIPT.py …`."""
    found = []
    for code in code_of(text):
        code = re.sub(r"\s#.*", "", code)
        starts = list(
            re.finditer(r"python -m ([\w.]+)|(?:python|torchrun)(?: --?\S+(?: [\w:.-]+)??)* ([\w/]+\.py)", code)
        )
        for start, end in zip(starts, [*starts[1:], None], strict=False):
            words = re.split(r"&&|;|\|(?= *\w+ )", code[start.end() : end.start() if end else None])[0].split()
            found.append((("-m", start[1].rstrip(".")) if start[1] else (start[2],), words))
    return found


def missing_commands(text: str, at: str) -> list[str]:
    """Modules and scripts that are not there, and `--section.key` options that no config has, wherever they stand."""
    complaints = []
    for command, _ in commands(text):
        if command[-1].split(".")[0] in OTHERS:
            continue
        path = command[0] if len(command) == 1 else module_file(command[1])
        main = (
            module_file(f"{command[1]}.__main__")
            if len(command) == 2 and (path or "").endswith("__init__.py")
            else path
        )
        if main not in files():
            complaints.append(f"{at}: {' '.join(command)} is not there")
        elif "__main__" not in (ROOT / main).read_text() and not main.endswith("__main__.py"):
            complaints.append(f"{at}: {' '.join(command)} does not run")
    flags = [flag for code in code_of(text) for flag in re.findall(r"(?<![\w-])--([a-z_]+\.\w+)", code)]
    return complaints + [f"{at}: --{flag} is no key" for flag in flags if flag not in keys() | {"section.key"}]


# Runs COMMAND --help for each line of its input in a forked child, so that torch is imported once for all of them.
ASK_FOR_HELP = """
import json, os, runpy, sys, tempfile, traceback
import torch, tracelift.build
for line in sys.stdin:
    command = json.loads(line)
    with tempfile.TemporaryFile() as out:
        if not (pid := os.fork()):
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            code = 0
            try:
                if command[0] == "-m":
                    sys.argv, sys.path[0] = [*command[1:], "--help"], os.getcwd()
                    runpy.run_module(command[1], run_name="__main__", alter_sys=True)
                else:
                    sys.argv, sys.path[0] = [*command, "--help"], os.path.dirname(os.path.abspath(command[0]))
                    runpy.run_path(command[0], run_name="__main__")
            except SystemExit as e:
                code = e.code or 0
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            os._exit(code)  # tearing the interpreter down takes longer than the help
        status = os.waitpid(pid, 0)[1]
        out.seek(0)
        print(json.dumps([command, os.waitstatus_to_exitcode(status), out.read().decode()]), flush=True)
"""


def help_texts(asked: Iterable[Command]) -> dict[Command, tuple[int, str]]:
    """Exit code and output of each COMMAND --help."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    lines = "".join(json.dumps(command) + "\n" for command in asked)
    done = subprocess.run([sys.executable, "-c", ASK_FOR_HELP], cwd=ROOT, env=env, input=lines, stdout=-1, text=True)
    return {tuple(command): (code, told) for command, code, told in map(json.loads, done.stdout.splitlines())}


def unknown_options(command: Command, words: list[str], help_text: str) -> list[str]:
    """Options without a dot that the command's help does not name; those with one are keys."""
    asked = [re.sub(r"=.*|[\],.)]+$", "", w.lstrip("[(")) for w in words if w.lstrip("[(").startswith("--")]
    flags = [flag for flag in asked if "." not in flag and len(flag) > 2]
    return [
        f"{' '.join(command)} knows no {f}"
        for f in flags
        if f != "--help" and not re.search(rf"{f}(?![\w-])", help_text)
    ]


def absent_documents(text: str, at: str) -> list[str]:
    """Documents that a source file or page cites and that are not in the repository."""
    names = re.findall(r"\b(?:docs/)?[\w-]+\.md\b", text)
    last = {f.rpartition("/")[2] for f in files()}
    complaints = [f"{at} cites {n}" for n in names if (n not in files() if "/" in n else n not in last)]
    return complaints + [
        f"{at} cites {word}" for word in ("DES" + "IGN", "../" + "shared", "/work" + "/") if word in text
    ]


CHECKS = (missing_files, missing_names, broken_links, missing_targets, missing_commands, absent_documents)


@pytest.mark.parametrize("path", DOCUMENTS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_is_mentioned_exists(check, path):
    assert check(read(path), path) == []


MENTIONED: dict[Command, list[list[str]]] = {}
for _path in DOCUMENTS:
    for _command, _words in commands(read(_path)):
        if _command[-1].split(".")[0] not in OTHERS:
            sub = _words[:1] if _words and _command[-1] in ("tracelift.groups",) and _words[0].isalpha() else []
            MENTIONED.setdefault((*_command, *sub), []).append(_words)


@pytest.fixture(scope="module")
def helps() -> dict[Command, tuple[int, str]]:
    return help_texts([*MENTIONED, ("-m", "tracelift.no_such_module")])


@pytest.mark.parametrize("command", sorted(MENTIONED), ids=" ".join)
def test_a_command_answers_help_and_knows_its_options(command, helps):
    code, told = helps[command]
    assert code == 0, told
    assert [c for words in MENTIONED[command] for c in unknown_options(command, words, told)] == []


def test_no_text_cites_a_document_that_is_not_there():
    texts = [
        f
        for f in files()
        if Path(f).suffix in TEXT and not f.startswith("assets/") and f not in ("LICENSE", "tests/test_docs.py")
    ]
    told = [c for f in texts for c in absent_documents((ROOT / f).read_text(encoding="utf-8"), f)]
    assert told == []


def test_source_files_cite_files_that_are_there():
    """In docstrings and comments."""
    told = []
    for path in (
        f for f in files() if f.endswith(".py") and f not in ("tests/test_docs.py", "tests/test_architecture.py")
    ):
        text = (ROOT / path).read_text(encoding="utf-8")
        owners = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Module | ast.ClassDef | ast.FunctionDef))
        cited = [*(ast.get_docstring(n) or "" for n in owners), *re.findall(r"#(?: |!).*", text)]
        told += missing_files("\n".join(cited), path)
    assert told == []


BROKEN = [
    (missing_files, "see `tracelift/rl/nothing.py`", "tracelift/rl/nothing.py is not there"),
    (missing_files, "see tracelift/nowhere/ for it", "tracelift/nowhere/ is not there"),
    (missing_files, "    python train.py configs/nothing.toml", "configs/nothing.toml is not there"),
    (missing_files, "with configs/nothing-*.toml", "configs/nothing-*.toml is not there"),
    (missing_files, "| `trie.py` | which prompts |", "no file called trie.py"),
    (missing_names, "`tracelift/rl/grpo.py: no_loss`", "tracelift/rl/grpo.py has no no_loss"),
    (missing_names, "`tracelift/rl/grpo.py: policy_loss, no_loss`", "has no no_loss"),
    (missing_names, "`models/reward.py: RewardModel.no_method`", "has no RewardModel.no_method"),
    (missing_files, "as `sampler/nothing.py` does", "no file called sampler/nothing.py"),
    (missing_names, "`Sampler.no_method` counts", "no class has Sampler.no_method"),
    (missing_names, "`kernels.no_kernel`", "kernels.no_kernel is neither"),
    (missing_names, "`train.no_function` does it", "train.no_function is neither"),
    (missing_names, "set `executor.nothing = 2`", "executor.nothing is neither"),
    (missing_names, "    import kernels\n    s = kernels.no_kernel(x)", "kernels.no_kernel is neither"),
    (broken_links, "[a](docs/nothing.md)", "docs/nothing.md leads nowhere"),
    (broken_links, "[a](docs/method.md#no-such-heading)", "docs/method.md has no heading #no-such-heading"),
    (broken_links, "# One\n[a](#two)", "has no heading #two"),
    (missing_targets, "run `make coffee`", "make coffee is no target"),
    (missing_targets, "    make coffee   # hot", "make coffee is no target"),
    (missing_commands, "`python -m tracelift.memory CONFIG`", "tracelift.memory is not there"),
    (missing_commands, "`python -m tracelift.rl`", "tracelift.rl is not there"),
    (missing_commands, "    python benchmarks/nothing.py", "benchmarks/nothing.py is not there"),
    (missing_commands, "`python -m tracelift.rl.grpo`", "tracelift.rl.grpo does not run"),
    (missing_commands, "    python train.py \\\n        --grpo.nothing 3", "--grpo.nothing is no key"),
    (absent_documents, '"""As docs/nothing.md says."""', "cites docs/nothing.md"),
    (absent_documents, "(DES" + "IGN §2)", "cites DES"),
]  # fmt: skip


@pytest.mark.parametrize("check, text, said", BROKEN, ids=[f"{b[0].__name__}-{i}" for i, b in enumerate(BROKEN)])
def test_a_fault_is_told(check, text, said):
    assert any(said in complaint for complaint in check(text, "README.md")), check(text, "README.md")


SOUND = """
# One thing, and `another`
[to the method](docs/method.md#demo-worlds), [here](#one-thing-and-another), `tracelift/rl/grpo.py: policy_loss`,
`models/reward.py: RewardModel.combine`, `executor.uplift = "likelihood"`, `kernels.linear_loss`, `train.score_tokens`,
tests/kernels/, configs/eval-*.toml, `make test`, `python -m tracelift.groups build --seeds FILE`, `config.json`

    python train.py configs/gsm8k.toml \\
        --planner.path MODEL --data.source problems.jsonl    # a remark
"""


def test_a_sound_text_is_let_be():
    assert [complaint for check in CHECKS for complaint in check(SOUND, "README.md")] == []


def test_a_command_that_fails_is_told(helps):
    assert helps["-m", "tracelift.no_such_module"][0] != 0


def test_commands_are_found_with_their_options():
    text = "`python -m a.b --x 1`\n\n    torchrun --standalone --nproc_per_node=2 train.py c.toml \\\n        --run.out r --y  # more\n"
    assert commands(text) == [(("-m", "a.b"), ["--x", "1"]), (("train.py",), ["c.toml", "--run.out", "r", "--y"])]
    assert unknown_options(("train.py",), ["c.toml", "--run.out", "r", "--y"], "--yes --x") == ["train.py knows no --y"]
