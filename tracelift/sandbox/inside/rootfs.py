"""The file system a program sees: the interpreter's own folders, read-only, a few harmless devices, and /tmp.

Every path keeps its place, so the already running interpreter needs no other configuration; all else does not exist.
The folder to work in is /tmp, a fresh memory file system for each program, bounded in bytes and files and gone with
it.

Left out on purpose: /proc and /sys (through them one sees the parent's environment and the machine), and any
third-party packages (`-S`): programs have the standard library.
"""

from __future__ import annotations

import os
import sys
import sysconfig

from . import syscalls
from .syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT

WORK = "/tmp"
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
# statvfs flag -> mount flag: a user namespace may not clear what its source mount had set.
LOCKED = {os.ST_NOSUID: MS_NOSUID, os.ST_NODEV: MS_NODEV, os.ST_NOEXEC: MS_NOEXEC, os.ST_NOATIME: 0x400}
LOCKED |= {os.ST_NODIRATIME: 0x800, os.ST_RELATIME: 0x200000}


def interpreter_folders() -> list[str]:
    """Folders with the standard library and every shared library this process has mapped, none inside another."""
    found = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[5].strip() if line.count("/") else ""
            if ".so" in os.path.basename(path) and os.path.exists(path):
                found.add(os.path.dirname(os.path.realpath(path)))
    # An interpreter's prefix, the root or a home are never wanted whole, even where a library lies directly in them.
    found -= {"/", os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix), os.path.expanduser("~")}
    return sorted(p for p in found if not any(p != q and p.startswith(q + "/") for q in found))


def readable_files() -> list[str]:
    return [path for path in ("/etc/ld.so.cache",) if os.path.exists(path)]


def devices() -> list[str]:
    return [path for path in DEVICES if os.path.exists(path)]


def _bind(source: str, new_root: str, read_only: bool) -> None:
    target = new_root + source
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        open(target, "w").close()
    syscalls.mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        have = os.statvfs(target).f_flag
        kept = sum(flag for seen, flag in LOCKED.items() if have & seen)
        syscalls.mount(source, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | kept)


def enter_new_root() -> None:
    """Replace the root of this mount namespace. The old one is detached: no path leads back to it."""
    sources = interpreter_folders() + readable_files()
    machine_devices = devices()
    syscalls.mount("none", "/", None, MS_REC | MS_PRIVATE)  # nothing done here may show outside
    new_root = WORK  # any existing folder will do: the old root is gone in a moment
    hidden = [s for s in sources if s.startswith(WORK + "/")]
    if hidden:
        raise OSError(f"the interpreter lies under {WORK} ({hidden[0]}), which is the program's working folder")
    syscalls.mount("sandbox-root", new_root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,nr_inodes=256,mode=0755")
    for path in sources:
        _bind(path, new_root, read_only=True)
    for path in machine_devices:
        _bind(path, new_root, read_only=False)
    os.makedirs(new_root + WORK, exist_ok=True)
    for link in ("lib", "lib64", "usr/lib64"):  # merged-/usr systems: the loader asks for /lib/..., a link to /usr/lib
        if os.path.islink("/" + link) and not os.path.lexists(f"{new_root}/{link}"):
            os.makedirs(os.path.dirname(f"{new_root}/{link}"), exist_ok=True)
            os.symlink(os.readlink("/" + link), f"{new_root}/{link}")
    os.chdir(new_root)
    syscalls.pivot_root(".", ".")  # the old root now lies over the new one ...
    syscalls.unmount_lazily(".")  # ... and is lifted off
    os.chdir("/")
    syscalls.mount("sandbox-root", "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def mount_work(size: int) -> None:
    """A fresh /tmp in this (already private) mount namespace."""
    options = f"size={size},nr_inodes=4096,mode=0777"
    syscalls.mount("sandbox-work", WORK, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
