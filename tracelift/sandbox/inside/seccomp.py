"""seccomp: the list of system calls a Python program needs to compute and to use its own files, and no other.

A classic-BPF filter (Documentation/userspace-api/seccomp_filter.rst) that first checks the architecture word, then
allows by number, then looks into the arguments of the few calls that are both needed and dangerous:

    clone      threads only; a new process is refused               kill, tgkill   to itself only
    ioctl      asking about terminals and sizes only                prlimit64      of itself only
    fcntl      not choosing who gets a signal (F_SETOWN, F_SETSIG)  prctl          naming a thread only
    socketpair within this process, for asyncio                     sendto         to the other end of such a pair only
    open       where nothing else watches over truncation (Landlock before ABI 3, and no root of its own): not to cut a file
               that is not opened for writing, which Landlock takes for reading; truncate by name is then refused as well

clone3 hides its flags in memory, where a filter cannot look: it is answered ENOSYS, upon which the C library falls back
to clone. All the rest, socket, fork, execve, ptrace, mount, io_uring, bpf and the kernel's next idea, is EPERM, which
Python raises as PermissionError: a program that tries learns what happened to it, and goes on. chmod and utime are
among the refused because Landlock does not watch over them.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import struct

from . import syscalls

# name:x86-64/arm64, from the kernel's asm/unistd.h; "-" where an architecture never had the call.
TABLE = """
    read:0/63 write:1/64 readv:19/65 writev:20/66 pread64:17/67 pwrite64:18/68 preadv:295/69 pwritev:296/70
    preadv2:327/286 pwritev2:328/287 lseek:8/62 close:3/57 close_range:436/436 fstat:5/80 newfstatat:262/79
    stat:4/- lstat:6/- statx:332/291 access:21/- faccessat:269/48 faccessat2:439/439 readlink:89/-
    readlinkat:267/78 open:2/- openat:257/56 openat2:437/437 getdents:78/- getdents64:217/61 getcwd:79/17
    chdir:80/49 fchdir:81/50 mkdir:83/- mkdirat:258/34 rmdir:84/- unlink:87/- unlinkat:263/35 rename:82/-
    renameat:264/38 renameat2:316/276 link:86/- linkat:265/37 symlink:88/- symlinkat:266/36 truncate:76/45
    ftruncate:77/46 fallocate:285/47 fsync:74/82 fdatasync:75/83 umask:95/166 fadvise64:221/223
    copy_file_range:326/285 dup:32/23 dup2:33/- dup3:292/24 flock:73/32 pipe:22/- pipe2:293/59 eventfd:284/-
    eventfd2:290/19 poll:7/- ppoll:271/73 select:23/- pselect6:270/72 epoll_create:213/- epoll_create1:291/20
    epoll_ctl:233/21 epoll_wait:232/- epoll_pwait:281/22 epoll_pwait2:441/441 timerfd_create:283/85
    timerfd_settime:286/86 timerfd_gettime:287/87 recvfrom:45/207 shutdown:48/210
    getsockopt:55/209 getsockname:51/204 mmap:9/222 munmap:11/215 mprotect:10/226 mremap:25/216
    madvise:28/233 msync:26/227 mincore:27/232 mlock:149/228 munlock:150/229 brk:12/214 membarrier:324/283
    futex:202/98 futex_waitv:449/449 set_robust_list:273/99 get_robust_list:274/100 rseq:334/293
    set_tid_address:218/96 sched_yield:24/124 sched_getaffinity:204/123 sched_getscheduler:145/120
    sched_getparam:143/121 sched_get_priority_max:146/125 sched_get_priority_min:147/126 getcpu:309/168
    rt_sigaction:13/134 rt_sigprocmask:14/135 rt_sigreturn:15/139 rt_sigsuspend:130/133 rt_sigpending:127/136
    rt_sigtimedwait:128/137 sigaltstack:131/132 pause:34/- alarm:37/- setitimer:38/103 getitimer:36/102
    nanosleep:35/101 clock_nanosleep:230/115 clock_gettime:228/113 clock_getres:229/114 gettimeofday:96/169
    time:201/- times:100/153 timer_create:222/107 timer_settime:223/110 timer_gettime:224/108 timer_delete:226/111
    timer_getoverrun:225/109 getpid:39/172 getppid:110/173 gettid:186/178 getuid:102/174 geteuid:107/175
    getgid:104/176 getegid:108/177 getresuid:118/148 getresgid:120/150 getgroups:115/158 getpgid:121/155
    getpgrp:111/- getsid:124/156 getpriority:140/141 getrlimit:97/163 setrlimit:160/164 getrusage:98/165
    uname:63/160 sysinfo:99/179 getrandom:318/278 arch_prctl:158/- exit:60/93 exit_group:231/94 wait4:61/260
    waitid:247/95 statfs:137/43 fstatfs:138/44
    sendfile:40/71 restart_syscall:219/128
    clone:56/220 clone3:435/435 kill:62/129 tgkill:234/131 ioctl:16/29 prctl:157/167 prlimit64:302/261 fcntl:72/25
    socketpair:53/199 sendto:44/206
"""
FILTERED = (
    "clone",
    "clone3",
    "kill",
    "tgkill",
    "ioctl",
    "prctl",
    "prlimit64",
    "fcntl",
    "socketpair",
    "sendto",
)  # for their arguments

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COLUMN = {"x86_64": 0, "aarch64": 1}
X32_BIT = 0x40000000  # x86-64's second numbering of the same calls

ALLOW, KILL = 0x7FFF0000, 0x80000000
REFUSE, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS

CLONE_THREAD = 0x00010000
CLONE_NEW_ANY = 0x7E020000  # every CLONE_NEW* flag that clone, rather than clone3, knows
IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
FCNTL_REFUSED = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX
PRCTLS = (15, 16)  # PR_SET_NAME, PR_GET_NAME
O_TRUNC, O_WRONLY, O_RDWR = 0x200, 1, 2
AF_UNIX = 1  # the one family whose pairs asyncio needs; others load kernel modules

NR, ARCH, ARGS = 0, 4, 16  # offsets in struct seccomp_data; the low words of 64-bit arguments, little-endian
LOAD, JEQ, JGE, JSET, RET = 0x20, 0x15, 0x35, 0x45, 0x06


def numbers(machine: str) -> dict[str, int]:
    """System call numbers by name on this architecture."""
    pairs = (entry.split(":") for entry in TABLE.split())
    chosen = ((name, columns.split("/")[COLUMN[machine]]) for name, columns in pairs)
    return {name: int(number) for name, number in chosen if number != "-"}


def op(code: int, k: int, true: int = 0, false: int = 0) -> bytes:
    """One instruction; `true` and `false` are how many instructions to skip after a test."""
    return struct.pack("<HBBI", code, true, false, k)


def argument_in(index: int, values: tuple[int, ...], then: int, otherwise: int) -> list[bytes]:
    body = [op(LOAD, ARGS + 8 * index)]
    for value in values:
        body += [op(JEQ, value, 0, 1), op(RET, then)]
    return body + [op(RET, otherwise)]


def null_pointer(index: int) -> list[bytes]:
    """Allow where this argument is null, in both words of it."""
    low, high = ARGS + 8 * index, ARGS + 8 * index + 4
    return [op(LOAD, low), op(JEQ, 0, 0, 2), op(LOAD, high), op(JEQ, 0, 1, 0), op(RET, REFUSE), op(RET, ALLOW)]


def choose(pieces: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """A binary search for the piece (first number, instructions that end in a return) the call's number falls into.

    On installing a filter the kernel runs it once for each of its call numbers, to remember those that are always
    allowed; so its length is part of the price of starting a program.
    """
    if len(pieces) == 1:
        return pieces[0][1]
    half = len(pieces) // 2
    below, above = choose(pieces[:half]), choose(pieces[half:])
    return [op(JGE, pieces[half][0], len(below), 0), *below, *above]


def cutting(index: int) -> list[bytes]:
    """Refuse to open with O_TRUNC but for writing: the flags are argument `index`. Access mode 3 is neither."""
    writes = [op(JSET, O_WRONLY, 0, 2), op(JSET, O_RDWR, 0, 2), op(RET, REFUSE), op(JSET, O_RDWR, 0, 1)]
    return [op(LOAD, ARGS + 8 * index), op(JSET, O_TRUNC, 0, 4), *writes, op(RET, ALLOW), op(RET, REFUSE)]


def build(machine: str, pid: int, truncation_watched: bool = True) -> list[bytes]:
    """The filter for a program that knows itself as `pid`. truncation_watched: another layer keeps it to its own files."""
    nr = numbers(machine)
    allow, refuse = [op(RET, ALLOW)], [op(RET, REFUSE)]
    threads_only = [op(LOAD, ARGS), op(JSET, CLONE_NEW_ANY, 2, 0), op(JSET, CLONE_THREAD, 0, 1), *allow, *refuse]
    special = {
        "clone": threads_only,
        "clone3": [op(RET, ABSENT)],
        "kill": argument_in(0, (pid,), ALLOW, REFUSE),
        "tgkill": argument_in(0, (pid,), ALLOW, REFUSE),
        "prlimit64": argument_in(0, (0, pid), ALLOW, REFUSE),
        "ioctl": argument_in(1, IOCTLS, ALLOW, REFUSE),
        "prctl": argument_in(0, PRCTLS, ALLOW, REFUSE),
        "fcntl": argument_in(1, FCNTL_REFUSED, REFUSE, ALLOW),
        "socketpair": argument_in(0, (AF_UNIX,), ALLOW, REFUSE),
        "sendto": null_pointer(4),  # a datagram socket, paired or not, would send to any address in the file system
    }
    if not truncation_watched:
        special |= {"truncate": refuse, "open": cutting(1), "openat": cutting(2), "openat2": [op(RET, ABSENT)]}
    bodies = {number: special.get(name, allow) for name, number in nr.items()}
    pieces = [(0, bodies.get(0, refuse))]
    for number in range(1, max(bodies) + 2):
        body = bodies.get(number, refuse)
        if body is not pieces[-1][1]:
            pieces.append((number, body))
    if machine == "x86_64":
        pieces.append((X32_BIT, [op(RET, KILL)]))
    return [op(LOAD, ARCH), op(JEQ, AUDIT_ARCH[machine], 1, 0), op(RET, KILL), op(LOAD, NR), *choose(pieces)]


def available() -> bool:
    """Whether the kernel filters calls and this architecture's numbers are known."""
    if syscalls.MACHINE not in AUDIT_ARCH:
        return False
    try:
        return syscalls.prctl(syscalls.PR_GET_SECCOMP, call="GET_SECCOMP") in (0, 2)
    except OSError:
        return False


@functools.cache
def assemble(pid: int, truncation_watched: bool) -> bytes:
    """The filter for this machine; the launcher calls this once for process 1, so that its forks need not."""
    return b"".join(build(syscalls.MACHINE, pid, truncation_watched))


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def restrict(pid: int, truncation_watched: bool) -> None:
    """Filter this thread and all it starts, for good. no_new_privs must already be set."""
    code = assemble(pid, truncation_watched)
    program = _Program(len(code) // 8, code)
    syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, ctypes.byref(program), call="SECCOMP_MODE_FILTER")
