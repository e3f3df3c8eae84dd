"""The shape of the source tree: which room may import which, how large rooms and files are, what is imported nowhere.

Each rule is a function from a tree (path → source text) to complaints, so that it is tried on the repository and on small
made-up trees that break it. Imports are read with ast: those inside functions and under TYPE_CHECKING count like all others.
Left out: modules named in strings (`python -m`, importlib), and what documents say (tests/test_docs.py).
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("kernels", "models", "tracelift", "examples", "benchmarks", "tests")
SCRIPTS = ("train.py", "eval.py")
# The rooms of tracelift/, in the order of its docstring: a room imports itself and those before it.
ROOMS = (
    "errors", "files", "rubrics", "config", "stats", "sandbox", "sampler", "verify", "programs", "tasks",
    "executor", "worlds", "distributed", "runs", "training", "reward_model", "rl", "build", "dry_run", "evaluation", "explain",
    "worlds/build", "groups", "serve",
)  # fmt: skip
BELOW, ABOVE = ("kernels", "models"), ("train", "eval", "examples")
FRAMEWORKS = {"transformers", "trl", "peft", "accelerate", "deepspeed", "vllm", "lightning", "pytorch_lightning"}
LONGEST = 350
Tree = dict[str, str]


def read_tree(root: Path) -> Tree:
    paths = [p for folder in FOLDERS for p in (root / folder).rglob("*.py")] + [root / name for name in SCRIPTS]
    return {p.relative_to(root).as_posix(): p.read_text(encoding="utf-8") for p in sorted(paths)}


def within(tree: Tree, *places: str) -> Tree:
    """The part of the tree under these folders or scripts."""
    return {p: text for p, text in tree.items() if p in places or p.split("/")[0] in places}


def module_of(path: str) -> str:
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room of a module: a package below or a script above tracelift/, a folder or a root file of it."""
    parts = module.split(".")
    if parts[0] != "tracelift" or len(parts) == 1:
        return parts[0]
    return "worlds/build" if parts[1:3] == ["worlds", "build"] else parts[1]


@cache
def imported(path: str, text: str) -> set[str]:
    """Every dotted name that a file imports; `from a import b` gives a.b, for b may be a module."""
    package = module_of(path).split(".")
    if not path.endswith("/__init__.py"):
        package = package[:-1]
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{start}.{alias.name}" for alias in node.names}
    return found


def edges(tree: Tree) -> dict[str, set[str]]:
    """Module → modules of the tree that it imports by name."""
    modules = {module_of(path): path for path in tree}
    out: dict[str, set[str]] = {}
    for module, path in modules.items():
        names = ({name, name.rpartition(".")[0]} for name in imported(path, tree[path]))
        nearest = (next((n for n in sorted(pair, key=len, reverse=True) if n in modules), None) for pair in names)
        out[module] = {n for n in nearest if n and n != module}
    return out


def room_edges(tree: Tree) -> dict[str, set[str]]:
    out = defaultdict(set)
    for module, targets in edges(tree).items():
        out[room_of(module)] |= {room_of(t) for t in targets} - {room_of(module)}
    return out


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components with more than one node)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in number:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], number[target])
        if lowest[node] == number[node]:
            start = stack.index(node)
            if len(stack) - start > 1:
                found.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


# -- the rules: a tree → what is wrong with it -------------------------------------------------------------------------


def imports_from_below(tree: Tree) -> list[str]:
    order = {room: i for i, room in enumerate((*BELOW, "tracelift", *ROOMS, *ABOVE))}
    complaints = []
    for module, targets in edges(within(tree, *BELOW, "tracelift", "examples", *SCRIPTS)).items():
        for target in sorted(targets):
            ours, theirs = room_of(module), room_of(target)
            if ours != theirs and (ours not in order or order.get(theirs, len(order)) > order[ours]):
                complaints.append(f"{module} imports {target}: {theirs} is not above {ours} in the list of rooms")
    return complaints


def unlisted_rooms(tree: Tree) -> list[str]:
    """Rooms of the tree that the list lacks, rooms of the list that the tree lacks, and a map that differs from the list."""
    there = {room_of(module_of(p)) for p in within(tree, "tracelift") if p != "tracelift/__init__.py"}
    complaints = [f"{room} is a room that the list lacks" for room in sorted(there - {*ROOMS})]
    complaints += [f"{room} is in the list and not in the tree" for room in ROOMS if room not in there]
    docstring = ast.get_docstring(ast.parse(tree["tracelift/__init__.py"]), clean=False) or ""
    lines = re.findall(r"^    (\S+(?: \S+)*?)  +\S", docstring, re.MULTILINE)
    told = tuple(name.rstrip("/") for line in lines for name in line.split())
    return complaints + ([] if told == ROOMS else [f"the map in tracelift/__init__.py says {' '.join(told)}"])


def room_circles(tree: Tree) -> list[str]:
    return [f"rooms import each other: {' '.join(c)}" for c in circles(room_edges(within(tree, *BELOW, "tracelift")))]


def file_circles(tree: Tree) -> list[str]:
    return [f"files import each other: {' '.join(c)}" for c in circles(edges(tree))]


def room_sizes(tree: Tree) -> list[str]:
    """At most 8 files at the root of tracelift/, 13 in any one folder; at least 3 in a room, its sub-folders counted."""
    folders, rooms = defaultdict(int), defaultdict(int)
    for path in within(tree, *BELOW, "tracelift"):
        folders[path.rpartition("/")[0]] += 1
        if path.count("/") > 1 or not path.startswith("tracelift/"):
            rooms[room_of(module_of(path))] += 1
    limits = {"tracelift": 8}
    many = [f"{f} holds {n} files" for f, n in folders.items() if n > limits.get(f, 13)]
    return many + [f"{room} holds only {n} files" for room, n in rooms.items() if n < 3]


def foreign_imports(tree: Tree) -> list[str]:
    """kernels/ stands alone, models/ knows no tracelift, and no training or serving framework is used at run time."""
    own = {"kernels": {"kernels", "torch", "triton", *sys.stdlib_module_names}}
    complaints = []
    for path, text in within(tree, *BELOW, "tracelift", "examples", *SCRIPTS).items():
        tops = {name.split(".")[0] for name in imported(path, text)}
        room = path.split("/")[0]
        refused = tops & FRAMEWORKS | (tops - own[room] if room in own else set())
        refused |= tops & {"tracelift", "benchmarks", "train", "eval"} if room == "models" else set()
        refused |= tops & {"tests", "support"}
        complaints += [f"{path} imports {name}" for name in sorted(refused)]
    return complaints


def without_docstring(tree: Tree) -> list[str]:
    return [f"{path} opens without a docstring" for path, t in tree.items() if not ast.get_docstring(ast.parse(t))]


def too_long(tree: Tree) -> list[str]:
    lines = {p: t.count("\n") for p, t in within(tree, *BELOW, "tracelift", "examples", *SCRIPTS).items()}
    return [f"{p} has {n} lines" for p, n in lines.items() if n > LONGEST]


RULES: tuple[Callable[[Tree], list[str]], ...] = (
    imports_from_below, unlisted_rooms, room_circles, file_circles, room_sizes, foreign_imports, without_docstring,
    too_long,
)  # fmt: skip


@pytest.fixture(scope="module")
def repository() -> Tree:
    return read_tree(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps(rule, repository):
    assert rule(repository) == []


MAP = '"""Map.\n\n    errors        messages\n    sandbox/      runs\n"""\n'
BROKEN = [
    (imports_from_below, {"tracelift/files.py": "from tracelift.runs import folder", "tracelift/runs/folder.py": ""},
     "tracelift.files imports tracelift.runs.folder"),
    (imports_from_below, {"tracelift/files.py": "def f():\n    import tracelift.runs", "tracelift/runs/__init__.py": ""},
     "tracelift.files imports tracelift.runs"),
    (imports_from_below, {"tracelift/verify/math.py": "if TYPE_CHECKING:\n    from tracelift.tasks.task import Task",
                          "tracelift/tasks/task.py": ""}, "tracelift.verify.math imports tracelift.tasks.task"),
    (imports_from_below, {"tracelift/worlds/tasks.py": "from .build import rows", "tracelift/worlds/build/rows.py": ""},
     "worlds/build is not above worlds"),
    (imports_from_below, {"kernels/ops.py": "import models", "models/__init__.py": ""}, "kernels.ops imports models"),
    (imports_from_below, {"tracelift/rl/a.py": "import train", "train.py": ""}, "tracelift.rl.a imports train"),
    (unlisted_rooms, {"tracelift/__init__.py": MAP, "tracelift/plugins/a.py": ""}, "plugins is a room that the list"),
    (unlisted_rooms, {"tracelift/__init__.py": MAP}, "serve is in the list and not in the tree"),
    (unlisted_rooms, {"tracelift/__init__.py": MAP}, "the map in tracelift/__init__.py says errors sandbox"),
    (room_circles, {"tracelift/rl/a.py": "import tracelift.runs.b", "tracelift/rl/c.py": "",
                    "tracelift/runs/b.py": "import tracelift.rl.c"}, "rooms import each other: rl runs"),
    (file_circles, {"models/a.py": "from . import b", "models/b.py": "from models.c import x",
                    "models/c.py": "def f():\n    from models.a import y"}, "models.a models.b models.c"),
    (room_sizes, {f"tracelift/a{i}.py": "" for i in range(9)}, "tracelift holds 9 files"),
    (room_sizes, {f"tracelift/rl/a{i}.py": "" for i in range(14)}, "tracelift/rl holds 14 files"),
    (room_sizes, {"tracelift/rl/a.py": "", "tracelift/rl/b.py": ""}, "rl holds only 2 files"),
    (foreign_imports, {"kernels/a.py": "def f():\n    import numpy"}, "kernels/a.py imports numpy"),
    (foreign_imports, {"models/a.py": "from tracelift.files import x"}, "models/a.py imports tracelift"),
    (foreign_imports, {"tracelift/rl/a.py": "def f():\n    from trl.models import x"}, "tracelift/rl/a.py imports trl"),
    (foreign_imports, {"train.py": "import support.runs"}, "train.py imports support"),
    (without_docstring, {"tests/test_a.py": "x = 1\n"}, "tests/test_a.py opens without"),
    (too_long, {"models/a.py": "\n" * 351}, "models/a.py has 351 lines"),
    (too_long, {"train.py": "\n" * 1000}, "train.py has 1000 lines"),
]  # fmt: skip


@pytest.mark.parametrize("rule, tree, said", BROKEN, ids=[f"{b[0].__name__}-{i}" for i, b in enumerate(BROKEN)])
def test_a_broken_tree_is_told(rule, tree, said):
    assert any(said in complaint for complaint in rule(tree)), rule(tree)


def test_a_sound_tree_is_let_be():
    tree = {
        "tracelift/rl/a.py": '"""a"""\nimport json\nimport torch\nfrom tracelift.files import b\nfrom . import c\n',
        "tracelift/rl/c.py": '"""c"""\n',
        "tracelift/rl/__init__.py": '"""rl"""\nfrom tracelift.rl.a import x\n',
        "tracelift/files.py": '"""files"""\n',
    }
    sound = [rule for rule in RULES if rule not in (unlisted_rooms, too_long)]
    assert [complaint for rule in sound for complaint in rule(tree)] == []
