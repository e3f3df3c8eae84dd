"""Replace a folder in one step: write aside, force to disk, rename. A failed or killed save never harms the old one.

`replaced_folder(path)` yields an empty sibling folder; when the block ends well the sibling takes the name `path`.
If the block raises (a full disk, Ctrl-C) the sibling is removed and `path` is as it was. If the process is killed the
sibling `.NAME.saving` stays behind until the next save clears it. Between the two renames at the very end only the
name `.NAME.old` exists; loaders say so (models/hf_config.check_folder) and the next save restores it first.

Left out on purpose: locking. Two processes saving to one path at once is the caller's bug (ranks above 0 do not save).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


def flush(path: Path) -> None:
    """Force a file, or the names in a folder, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


@contextmanager
def replaced_folder(path: str | PathLike[str], stale: Callable[[str], bool]) -> Iterator[Path]:
    """Yield a fresh folder that becomes `path` on success.

    Files already in `path` are kept beside the new ones, except those for which `stale(name)` is true and those the
    block wrote itself. Raises OSError as the file system does, with `path` untouched; NotADirectoryError where `path`
    is a file; IsADirectoryError where `path` has sub-folders (a model is saved to a folder of its own).
    """
    path = Path(path).resolve()  # a symbolic link keeps pointing at the folder it names
    aside, old = path.with_name(f".{path.name}.saving"), path.with_name(f".{path.name}.old")
    if not path.exists() and old.exists():
        os.rename(old, path)  # an earlier save was killed between its two renames
    if path.exists():
        if not path.is_dir():
            raise NotADirectoryError(f"{path}: is a file; a model is saved to a folder")
        for entry in path.iterdir():
            if entry.is_dir():
                raise IsADirectoryError(f"{path}: holds the sub-folder {entry.name!r}; save to a folder of its own")
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for entry in path.iterdir() if path.exists() else ():
            if not stale(entry.name) and not (aside / entry.name).exists():
                _link_or_copy(entry, aside / entry.name)
        mode = aside.stat().st_mode & 0o666  # what the umask grants; safetensors itself writes owner-only files
        for entry in aside.iterdir():
            entry.chmod(mode)
            flush(entry)
        flush(aside)
        if path.exists():
            os.rename(path, old)
        os.rename(aside, path)
    except BaseException:
        if not path.exists() and old.exists():
            os.rename(old, path)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)
