"""What a program cannot get out of: the layers, probed once by the launcher and applied again for each program.

    once, by the launcher   user, mount, network, IPC, UTS and cgroup namespaces; the new root
    by each program's guard PID and IPC namespaces, a session of its own, a private /tmp
    by the program itself   rlimits, an unprivileged user id, no capabilities, no keys, no_new_privs, Landlock, seccomp

The layers overlap on purpose: where default Docker refuses namespaces, Landlock and seccomp hold the same promises, and
on a kernel without those the namespaces do.

Left out on purpose: control groups, which need a delegated hierarchy that few containers have.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from dataclasses import dataclass, field

from . import landlock, rootfs, seccomp, syscalls
from .syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

NOBODY = 65534
NAMESPACES = ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")
OWN_LAYERS = ("rlimits", "unprivileged", "own_id", "capabilities", "no_new_privs", "landlock", "seccomp")
LAYERS = NAMESPACES + OWN_LAYERS


# User ids of programs, one for each that runs: the kernel counts threads by user id. A range that systemd leaves unused,
# and low enough for containers that are given 65,536 ids.
OWN_IDS = range(60600, 61112)
SPARE = 64  # threads, where an id is shared: what others of that id may start meanwhile


@dataclass
class Machine:
    """What enter_shared finds before /proc disappears; the paths are the same in the new root."""

    readable: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    tasks: int = 0  # threads that already run under the programs' id, where they share one


MACHINE = Machine()


def _enter_user_namespace() -> None:
    """Leave the machine's user ids behind. Root maps itself and nobody; anyone else appears as nobody alone."""
    uid, gid, me = os.geteuid(), os.getegid(), os.getpid()
    if uid != 0:
        syscalls.unshare(CLONE_NEWUSER)
        maps = {"setgroups": "deny", "uid_map": f"{NOBODY} {uid} 1", "gid_map": f"{NOBODY} {gid} 1"}
        for name, text in maps.items():
            with open(f"/proc/self/{name}", "w") as f:
                f.write(text)
        return
    # Two ids can only be mapped from the parent namespace: a helper stays behind there and writes the maps.
    entered, wait = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            os.close(wait)
            os.read(entered, 1)
            for name in ("uid_map", "gid_map"):
                two = f"0 0 1\n{NOBODY} {NOBODY} 1\n"
                own = f"{OWN_IDS.start} {OWN_IDS.start} {len(OWN_IDS)}\n" if name == "uid_map" else ""
                _write_either(f"/proc/{me}/{name}", two + own, two)
            os._exit(0)
        except OSError:
            os._exit(1)
    os.close(entered)
    try:
        syscalls.unshare(CLONE_NEWUSER)
    finally:
        os.close(wait)
        status = os.waitpid(helper, 0)[1]
    if status != 0:
        raise OSError("the ids of the user namespace could not be mapped")


def _write_either(path: str, wanted: str, at_least: str) -> None:
    """Ids can only be passed on by who has them: a container may have few."""
    try:
        with open(path, "w") as f:
            f.write(wanted)
    except OSError:
        with open(path, "w") as f:
            f.write(at_least)


def _no_user_namespaces_below() -> None:
    """A program that could make one would be root in it, with mounts, networks and memory file systems of its own."""
    try:
        with open("/proc/sys/user/max_user_namespaces", "w") as f:
            f.write("0")
    except OSError:
        pass  # /proc/sys is read-only in some containers; seccomp refuses the calls all the same


def _works_in_a_child(action: Callable[[], object]) -> str:
    """Try an irrevocable step in a child process; '' if it works there, else why not."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        except BaseException as error:  # whatever it is, it is the answer
            os.write(write, (str(error) or repr(error)).encode()[:500])
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        reason = f.read().decode(errors="replace")
    return "" if os.waitpid(pid, 0)[1] == 0 else reason or "the trial process died"


def user_id(layers: set[str], slot: int) -> int:
    """Under which id the program in this slot runs, if the launcher may choose."""
    return OWN_IDS[slot % len(OWN_IDS)] if "own_id" in layers else NOBODY


def _give_up_identity(uid: int = NOBODY) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(uid, uid, uid)
    for path in MACHINE.readable:  # an interpreter in root's home is of no use to nobody, unless bound into a new root
        if not os.access(path, os.R_OK):
            raise OSError(f"{path} cannot be read but by root")


def enter_shared(without: set[str]) -> dict[str, str]:
    """The launcher's part. Returns for each layer '' if active, else the reason why it is not."""
    reasons: dict[str, str] = {}

    def attempt(name: str, action: Callable[[], object]) -> None:
        reasons[name] = "switched off" if name in without else _works_in_a_child(action)
        if not reasons[name]:
            action()

    MACHINE.readable = rootfs.interpreter_folders() + rootfs.readable_files()
    MACHINE.devices = rootfs.devices()
    MACHINE.tasks = tasks_of(NOBODY if os.geteuid() == 0 else os.geteuid())
    if not _works_in_a_child(syscalls.leave_keyring):  # refused where there are no keyrings to inherit either
        syscalls.leave_keyring()
    attempt("user", _enter_user_namespace)
    if not reasons["user"]:
        _no_user_namespaces_below()
    for name, flag in (("network", CLONE_NEWNET), ("ipc", CLONE_NEWIPC), ("uts", CLONE_NEWUTS)):
        attempt(name, lambda flag=flag: syscalls.unshare(flag))
    attempt("cgroup", lambda: syscalls.unshare(CLONE_NEWCGROUP))

    def private_root() -> None:
        syscalls.unshare(CLONE_NEWNS)
        rootfs.enter_new_root()

    attempt("mount", private_root)

    def trial_only(name: str, action: Callable[[], object]) -> None:
        reasons[name] = "switched off" if name in without else _works_in_a_child(action)

    trial_only("pid", lambda: syscalls.unshare(CLONE_NEWPID))
    trial_only("rlimits", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
    trial_only("unprivileged", _give_up_identity)

    def own_id() -> None:
        if os.geteuid() != 0 or reasons["unprivileged"]:
            raise OSError("only root can give each program a user id: their threads are counted together")
        _give_up_identity(OWN_IDS[-1])

    trial_only("own_id", own_id)
    trial_only("capabilities", syscalls.drop_capabilities)
    trial_only("no_new_privs", _no_new_privs)

    def needs_no_new_privs() -> None:
        if reasons["no_new_privs"]:
            raise OSError("it needs no_new_privs")
        _no_new_privs()

    def landlock_trial() -> None:
        needs_no_new_privs()
        if landlock.abi() == 0:
            raise OSError("not built into or not switched on in this kernel")
        landlock.restrict(MACHINE.readable, MACHINE.devices, rootfs.WORK)

    trial_only("landlock", landlock_trial)
    watched = truncation_watched({name for name, reason in reasons.items() if not reason})

    def seccomp_trial() -> None:
        if not seccomp.available():
            raise OSError(f"the kernel has none, or its call numbers on {syscalls.MACHINE} are not known here")
        needs_no_new_privs()
        seccomp.restrict(os.getpid(), watched)

    if seccomp.available():
        seccomp.assemble(1, watched)
    trial_only("seccomp", seccomp_trial)
    if not reasons["capabilities"]:
        syscalls.bound_capabilities()  # once, and not by each program
    return reasons


def truncation_watched(layers: set[str]) -> bool:
    """Whether a program that may call truncate reaches its own files alone."""
    return "mount" in layers or ("landlock" in layers and landlock.abi() >= landlock.TRUNCATION)


def tasks_of(uid: int) -> int:
    """How many threads run under a user id, as far as /proc shows."""
    count = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                if entry.stat().st_uid == uid:
                    with open(f"/proc/{entry.name}/stat") as f:
                        count += int(f.read().rpartition(")")[2].split()[17])  # num_threads, proc(5)
            except (OSError, IndexError, ValueError):
                continue  # it has just ended
    return count


def _no_new_privs() -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1, call="NO_NEW_PRIVS")


def enter_own_namespaces(layers: set[str], disk_bytes: int) -> None:
    """The guard's part: process ids start again at 1 for its next child, and /tmp is empty and bounded."""
    flags = (CLONE_NEWPID if "pid" in layers else 0) | (CLONE_NEWIPC if "ipc" in layers else 0)
    if "mount" in layers:
        flags |= CLONE_NEWNS
    if flags:
        syscalls.unshare(flags)
    if "mount" in layers:
        rootfs.mount_work(disk_bytes)


def most_threads(limits: dict, layers: set[str], at_once: int) -> int:
    """The kernel counts threads by user id; within a user namespace from Linux 5.14. A program with an id of its own gets
    its limit. Where all share one, there must be room for all that may run at once, and for what else runs under it."""
    if "own_id" in layers or (os.geteuid() == 0 and "unprivileged" not in layers):  # which binds root to nothing
        return limits["threads"]
    if "mount" not in layers:
        MACHINE.tasks = tasks_of(os.geteuid() or NOBODY)  # /proc is still there: the count is of now
    return MACHINE.tasks + at_once * (limits["threads"] + 1) + SPARE


def limit_resources(limits: dict, threads: int) -> None:
    """Kernel bounds that hold whatever the guard does; CPU is rounded up, the guard is the exact one."""
    cpu = int(limits["cpu_seconds"]) + 2
    for what, value in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 64 << 10),
    ):
        hard = resource.getrlimit(what)[1]
        value = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(what, (value, value))


def give_up_rights(layers: set[str], work: str, uid: int) -> None:
    """The program's part, in its own process and before its first line. Raises OSError if a probed layer is refused."""
    if "unprivileged" in layers:
        _give_up_identity(uid)
    if "seccomp" not in layers:  # which refuses every call about keys
        syscalls.forget_keys()
    if "capabilities" in layers:
        syscalls.drop_capabilities()
    syscalls.die_with_parent()  # after the change of user id, which clears it
    if "no_new_privs" in layers:
        _no_new_privs()
    if "landlock" in layers:
        landlock.restrict(MACHINE.readable, MACHINE.devices, work)
    if "seccomp" in layers:
        seccomp.restrict(os.getpid(), truncation_watched(layers))
