"""The Linux calls Python 3.11 does not offer, through libc by ctypes: unshare, mount, pivot_root, prctl, capset.

Each raises OSError with the name of the call, so that a refused layer can be reported in words. Numbers are those of
the kernel's headers, equal on x86-64 and arm64 unless a table says otherwise.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_GET_SECCOMP, PR_SET_SECCOMP = 1, 4, 21, 22
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 23, 24, 38, 47, 4

MACHINE = platform.machine()
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING, KEYCTL_CLEAR, KEYCTL_GET_PERSISTENT = 1, 7, 22
SESSION, USER, USER_SESSION = -3, -4, -5  # keyrings by what they are to the caller


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def syscall(number: int, *args: object, call: str) -> int:
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    return _check(libc.syscall(ctypes.c_long(number), *wide), call)


def unshare(flags: int) -> None:
    _check(libc.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if s is None else s.encode() for s in (source, target, kind, data)]
    result = libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount({kind or 'bind'} on {target})")


def unmount_lazily(target: str) -> None:
    _check(libc.umount2(target.encode(), MNT_DETACH), f"umount2({target})")


def pivot_root(new: str, old: str) -> None:
    if MACHINE not in PIVOT_ROOT:
        raise OSError(f"pivot_root: its number on {MACHINE} is not known here")
    syscall(PIVOT_ROOT[MACHINE], ctypes.c_char_p(new.encode()), ctypes.c_char_p(old.encode()), call="pivot_root")


def leave_keyring() -> None:
    """Start a new, empty session keyring: the inherited one may hold the user's keys."""
    if MACHINE in KEYCTL:
        syscall(KEYCTL[MACHINE], KEYCTL_JOIN_SESSION_KEYRING, 0, call="keyctl(JOIN_SESSION_KEYRING)")


def forget_keys() -> None:
    """A session keyring of its own for this process and all it starts, and nothing in the keyrings of its user id that an
    earlier program left there. Does what it can: a kernel without keyrings refuses it all."""
    if MACHINE not in KEYCTL:
        return
    with contextlib.suppress(OSError):
        leave_keyring()
    for ring in (USER, USER_SESSION):
        with contextlib.suppress(OSError):
            syscall(KEYCTL[MACHINE], KEYCTL_CLEAR, ring, call="keyctl(CLEAR)")
    with contextlib.suppress(OSError):
        persistent = syscall(KEYCTL[MACHINE], KEYCTL_GET_PERSISTENT, -1, SESSION, call="keyctl(GET_PERSISTENT)")
        syscall(KEYCTL[MACHINE], KEYCTL_CLEAR, persistent, call="keyctl(CLEAR)")


def prctl(option: int, *args: object, call: str) -> int:
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in args]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))  # unused arguments must be zero
    return _check(libc.prctl(ctypes.c_int(option), *wide), f"prctl({call})")


def die_with_parent() -> None:
    """Ask for SIGKILL when the parent goes. Only for children of single-threaded parents: the signal is tied to the
    *thread* that forked."""
    prctl(PR_SET_PDEATHSIG, 9, call="PDEATHSIG")


def outlive_parent() -> None:
    """Take back `die_with_parent`."""
    prctl(PR_SET_PDEATHSIG, 0, call="PDEATHSIG")


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


def bound_capabilities() -> None:
    """Empty the bounding set: what this process has it keeps, and nothing it starts wins any by an exec."""
    for cap in range(64 if libc.prctl(PR_CAPBSET_READ, 0, 0, 0, 0) == 1 else 0):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(cap), 0, 0, 0) < 0:
            break  # past the last capability of this kernel, or not allowed to drop: then none can be regained


def drop_capabilities() -> None:
    """Empty every capability set, the bounding and ambient ones included."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, call="CAP_AMBIENT_CLEAR_ALL")
    bound_capabilities()
    header = _CapHeader(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3: two 32-bit words for each of the three sets
    _check(libc.capset(ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)())), "capset")
