"""Landlock: the process gives up, for good, every file right it was not granted here.

The kernel interface is Documentation/userspace-api/landlock.rst; rights that a kernel's ABI does not know are not asked
for. What is granted: reading the interpreter's folders, everything but devices and executables in the working folder.
From ABI 4 also TCP is refused, from ABI 6 signals and abstract sockets to any process outside. What an older ABI does not
watch, `unwatched` names, for seccomp or a namespace to keep.

Left out on purpose: the audit flags of ABI 7, and per-port network rules.
"""

from __future__ import annotations

import ctypes
import os

from . import syscalls

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
RULE_PATH_BENEATH = 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << i for i in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << i for i in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = READ_FILE | READ_DIR
WORK = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
DEVICE = READ_FILE | WRITE_FILE
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV  # those that make sense on a single file

TCP = 0b11  # bind, connect
SCOPE = 0b11  # abstract unix sockets, signals

# The ABI from which a right is watched that a program could use against what is outside.
SINCE = {3: "truncation", 4: "TCP", 5: "device ioctl", 6: "signals and abstract sockets"}
TRUNCATION = 3
newest = 1 << 30  # the newest ABI to use: the launcher lowers it where it is to be an older kernel


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def abi() -> int:
    """The kernel's Landlock ABI version; 0 where there is none."""
    try:
        return min(syscalls.syscall(CREATE_RULESET, 0, 0, 1, call="landlock_create_ruleset"), newest)
    except OSError:
        return 0


def unwatched(version: int) -> list[str]:
    """What this ABI does not know."""
    return [f"{what} (from ABI {since})" for since, what in SINCE.items() if version < since]


def _handled(version: int) -> int:
    bits = 13 + (version >= 2) + (version >= TRUNCATION) + (version >= 5)
    return (1 << bits) - 1


def restrict(readable: list[str], devices: list[str], work: str) -> None:
    """Restrict this thread and all it starts. no_new_privs must already be set. Raises OSError if refused."""
    version = abi()
    fs = _handled(version)
    rules = _Ruleset(fs, TCP if version >= 4 else 0, SCOPE if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24  # older kernels reject a struct longer than theirs
    ruleset = syscalls.syscall(CREATE_RULESET, ctypes.byref(rules), size, 0, call="landlock_create_ruleset")
    grants = [(path, READ) for path in readable] + [(path, DEVICE) for path in devices] + [(work, WORK)]
    for path, allowed in grants:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        allowed &= fs if os.path.isdir(path) else fs & FILE_RIGHTS
        rule = _PathBeneath(allowed, fd)
        syscalls.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0, call="landlock_add_rule")
        os.close(fd)
    syscalls.syscall(RESTRICT_SELF, ruleset, 0, call="landlock_restrict_self")
    os.close(ruleset)
