"""The other package called `kernels`, Hugging Face's: transformers imports names from it if it is installed.

With this folder first on the path, `from kernels import Mode` finds this package instead. What it asks for and does not
find here is taken from there, and where that package imports its own modules they are found beside ours. A copy of this
folder under another name has no namesake and never comes here.

Left out: the other way round, a namesake that stands first on the path hides this package.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

NAME, HERE = "kernels", Path(__file__).resolve().parent
_modules: list[ModuleType] = []  # the namesake, once it has been asked for


def find() -> ModuleSpec | None:
    """The first other package of the name on the path."""
    for entry in sys.path:
        spec = PathFinder.find_spec(NAME, [entry])
        if spec and spec.origin and Path(spec.origin).resolve().parent != HERE:
            return spec
    return None


def attribute(name: str) -> object:
    """A module's `__getattr__`: what the namesake calls by this name.

    Raises:
        AttributeError: there is no namesake, or it has no such name.
    """
    if not name.startswith("__"):
        spec = None if _modules else find()
        if spec is not None and spec.loader is not None:
            _modules.append(module_from_spec(spec))  # before it runs: its modules may ask for what it has by then
            sys.modules[NAME].__path__.extend(spec.submodule_search_locations or [])
            spec.loader.exec_module(_modules[0])
        if _modules and name in vars(_modules[0]):
            return vars(_modules[0])[name]
    raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
