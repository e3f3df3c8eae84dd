"""Triton's interpreter at half its price: the language is patched once a launch, not at every call of an inner function.

The interpreter replaces what `triton.language` holds by its own versions before a kernel runs, and again, looking through a few
hundred names, before each call of a `@triton.jit` function inside it, although nothing has changed since. Here a launch patches
for each module's functions once, and takes all of it back at its end. What is computed, and by what, stays the same.

Left out: other releases' interpreters; where the names below are not found, or Triton compiles, nothing is touched.
"""

from triton.runtime import interpreter


class Launch:
    """The scopes of one launch; `restore` undoes them, the last first."""

    def __init__(self):
        self.scopes = {}  # by the globals of the functions they were made for

    def restore(self):
        while self.scopes:
            self.scopes.popitem()[1].restore()


class Nothing:
    """What a patch that was made already leaves to restore."""

    def restore(self):
        pass


def patch_once_a_launch() -> None:
    """Takes effect in this process from now on; a second call changes nothing."""
    patch = getattr(interpreter, "_patch_lang", None)
    if patch is None or not hasattr(interpreter, "_LangPatchScope") or hasattr(patch, "launch"):
        return
    launch = Launch()

    def once(fn):
        first, key = not launch.scopes, id(fn.__globals__)
        if key in launch.scopes:
            return Nothing()
        launch.scopes[key] = patch(fn)
        return launch if first else Nothing()

    once.launch, once.every_call = launch, patch
    interpreter._patch_lang = once
