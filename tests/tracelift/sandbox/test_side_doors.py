"""Less common ways out of the sandbox: kernel interfaces that hold memory, name other processes or make privileges, and
a working folder left in a state that is hard to clean up. Each was tried, and some had worked, before it became a test.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from support.attacks import (
    ADD_KEY,
    attack,
    needs,
    own_processes,
    ran,
    skip,
    skipped,
    wait_until,
)
from tracelift.sandbox import Limits, Status, probe
from tracelift.sandbox.inside.confine import LAYERS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

SESSION_KEYRING = -3


# -- other processes -------------------------------------------------------------------------------------------------


def test_no_datagram_to_anybody(box, tmp_path):
    """A socket pair is allowed, for asyncio; as datagram sockets its ends could send to any address by name."""
    needs(box, "no network")
    os.chmod(tmp_path, 0o777)
    addresses = [str(tmp_path / "socket"), f"\0tracelift-datagrams-{os.getpid()}"]
    listeners = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in addresses]
    for listener, address in zip(listeners, addresses, strict=True):
        listener.bind(address)
    os.chmod(addresses[0], 0o777)
    result = attack(
        box,
        """
        import ctypes, os, socket
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a.send(b"honest")
        print(b.recv(10).decode())
        for address in ADDRESSES:
            for way in (lambda: a.sendto(b"secret", address), lambda: a.connect(address),
                        lambda: a.sendmsg([b"secret"], [], 0, address)):
                try:
                    way()
                    print("ESCAPED", address)
                except OSError:
                    pass
        """,
        ADDRESSES=addresses,
    )
    assert result.stdout == "honest\n", result
    for listener in listeners:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(10)
        listener.close()


def test_no_descriptor_is_handed_out(box):
    """Descriptors travel over Unix sockets; there is nobody to hand one to, and nobody to take one from."""
    result = attack(
        box,
        """
        import array, os, socket
        for fd in range(3):
            try:
                s = socket.socket(fileno=os.dup(fd))
                socket.send_fds(s, [b"x"], [1])
                print("ESCAPED by descriptor", fd)
            except OSError:
                pass
        print("done")
        """,
    )
    assert result.stdout == "done\n", result


def test_no_memory_of_other_processes_and_no_terminal(box):
    needs(box, "no files outside the interpreter and the working folder")
    result = attack(
        box,
        """
        import os
        for pid in ("self", 1, os.getppid(), PARENT, LAUNCHER):
            for name in ("mem", "root/etc/passwd", "environ", "task", "oom_score_adj", "fd/0", "ns/net")[:5 if pid == "self" else 7]:
                for flags in (os.O_RDONLY, os.O_RDWR):
                    try:
                        os.open(f"/proc/{pid}/{name}", flags)
                        print("ESCAPED", pid, name, flags)
                    except OSError:
                        pass
        for path in ("/dev/tty", "/dev/ptmx", "/dev/pts/0", "/dev/console", "/dev/shm/x", "/dev/mqueue"):
            try:
                os.open(path, os.O_RDWR | os.O_CREAT)
                print("ESCAPED", path)
            except OSError:
                pass
        print("done")
        """,
        PARENT=os.getpid(),
        LAUNCHER=box._launcher.process.pid,
    )
    assert result.stdout == "done\n", result


def test_no_key_of_the_users(box):
    """The kernel's keyrings outlive an exec and know no folders."""
    if platform.machine() not in ADD_KEY:
        skip("the number of add_key is not known on this machine")
    needs(box, "no signal to, or tracing of, other processes")
    libc, name, payload = ctypes.CDLL(None, use_errno=True), f"tracelift-{os.getpid()}".encode(), b"the-secret-91c4"
    key = libc.syscall(ADD_KEY[platform.machine()], b"user", name, payload, len(payload), SESSION_KEYRING)
    if key < 0:
        skip(f"this machine keeps no keys: {os.strerror(ctypes.get_errno())}")
    result = attack(
        box,
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(100)
        for key in [KEY, libc.syscall(ADD_KEY + 1, b"user", NAME, None, 0),
                    *(libc.syscall(ADD_KEY + 2, 10, ring, b"user", NAME, 0) for ring in (-3, -4, -5))]:
            if key >= 0 and libc.syscall(ADD_KEY + 2, 11, key, buffer, 100, 0) >= 0:
                print("ESCAPED", buffer.value)
        print("done")
        """,
        KEY=key,
        NAME=name,
        ADD_KEY=ADD_KEY[platform.machine()],
    )
    libc.syscall(ADD_KEY[platform.machine()] + 2, 3, key)  # revoke
    assert result.stdout == "done\n", result


# -- privileges and memory -------------------------------------------------------------------------------------------


def test_no_user_namespace_of_its_own(box):
    """In one, a program would be root: with mounts, networks, and memory file systems that no limit counts."""
    if box.layers.reasons["user"] and box.layers.reasons["seccomp"]:
        skip(f"{box.kind}: neither the user namespace nor seccomp is there to refuse it")
    result = attack(
        box,
        """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        for flags in (0x10000000, 0x10000000 | 0x40000000, 0x10000000 | 0x00020000):
            if libc.unshare(flags) == 0:
                print("ESCAPED", hex(flags), libc.mount(b"none", b"/tmp", b"tmpfs", 0, b"size=4g"))
        print("done")
        """,
    )
    assert result.stdout == "done\n", result


def test_no_memory_outside_the_address_space(box):
    """Shared segments and memory files are not counted by RLIMIT_AS once they are unmapped."""
    if box.layers.reasons["seccomp"]:
        skip(f"{box.kind}: without seccomp this is not promised (docs/sandbox.md)")
    result = attack(
        box,
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        held = []
        for make in (lambda: libc.shmget(0, 64 << 20, 0o1600), lambda: libc.memfd_create(b"x", 0),
                     lambda: libc.syscall(447, 0), lambda: libc.syscall(180, b"/queue", 0o102, 0o600, None)):
            held.append(make())
        print(held)
        """,
    )
    assert result.stdout == "[-1, -1, -1, -1]\n", result


# -- the working folder ----------------------------------------------------------------------------------------------


def test_links_lead_nowhere(box, tmp_path, victim):
    needs(box, "no files outside the interpreter and the working folder")
    (tmp_path / "folder").mkdir()
    os.chmod(tmp_path / "folder", 0o777)
    result = attack(
        box,
        """
        import os, shutil
        os.symlink(VICTIM, "to-file"); os.symlink(FOLDER, "to-folder"); os.symlink("/", "to-root")
        here = os.open(".", os.O_RDONLY)
        for way in (lambda: open("to-file", "w"), lambda: os.truncate("to-file", 0), lambda: os.utime("to-file", (1, 1)),
                    lambda: os.chmod("to-file", 0o777), lambda: os.unlink("to-folder/victim"),
                    lambda: os.rename("to-folder/folder", "taken"), lambda: os.rename("to-file", "to-folder/planted"),
                    lambda: os.link("to-folder/victim", "hard"),
                    lambda: os.mkdir("to-folder/new"), lambda: os.open("to-folder/new", os.O_CREAT | os.O_WRONLY, dir_fd=here),
                    lambda: open("to-root" + VICTIM, "a"), lambda: shutil.copy("to-file", "copy"),
                    lambda: os.open("to-folder", os.O_TMPFILE | os.O_RDWR)):
            try:
                way()
                print("ESCAPED")
            except OSError:
                pass
        print("done")
        """,
        VICTIM=str(victim),
        FOLDER=str(tmp_path),
    )
    assert result.stdout == "done\n", result
    assert victim.read_text() == "whole" and victim.stat().st_mtime > 1 and victim.stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == ["folder", "victim"]


FILL = {
    "deeper than paths are long": "for _ in range(3000): os.mkdir('d'); os.chdir('d')",
    "folders shut to their owner": "os.makedirs('a/b/c'); open('a/b/file', 'w'); os.mkdir('shut', 0)\nos.chmod('a/b', 0)",
    "links to elsewhere": "os.symlink('/', 'root'); os.symlink('/etc', 'etc'); os.symlink('loop', 'loop')",
    "many files": "for i in range(1 << 30): open(str(i), 'w').close()",
    "as many bytes as fit": "for i in range(1 << 30): open(str(i), 'wb').write(bytes(1 << 20))",
    "names that are no text": "open(b'\\xff\\n\\x1b', 'w').close(); os.mkdir(b'\\xfe')",
}


@pytest.mark.parametrize("way", FILL)
def test_the_working_folder_vanishes_however_it_was_left(box, way):
    limits = Limits(cpu_seconds=0.3, wall_seconds=20, disk_bytes=8 << 20)
    if box.layers.reasons["mount"] and "bytes" in way:
        skip(f"{box.kind}: without mount namespaces the folder is not bounded as a whole (docs/sandbox.md)")
    folders = lambda: set(Path(tempfile.gettempdir()).glob("tracelift-*"))  # noqa: E731
    before = folders()
    code = f"import os, time\ntry:\n    {FILL[way]}\nexcept OSError as error:\n    print(error.errno)\n".replace(
        "\nos.", "\n    os."
    )
    result = attack(box, code, limits)
    assert result.status in (Status.OK, Status.TIMEOUT), result
    assert wait_until(lambda: folders() <= before, seconds=60)
    assert attack(box, "import os; print(os.listdir('.')); open('x', 'w').write('x' * 100)").stdout == "[]\n"


# -- processes -------------------------------------------------------------------------------------------------------


def test_children_that_nobody_buries(box):
    needs(box, "no surviving process, no fork bomb")
    before = own_processes()
    result = attack(
        box,
        """
        import os
        made = 0
        try:
            while made < 5000:
                if os.fork() == 0:
                    os._exit(0)
                made += 1
        except OSError:
            pass
        print(made < 5000)
        """,
    )
    assert result.stdout == "True\n", result
    assert wait_until(lambda: own_processes() <= before)
    assert attack(box, "print('next')").stdout == "next\n"


def test_nothing_is_written_after_the_end(box):
    """What a child would print once its parent has ended is neither waited for nor part of the output."""
    needs(box, "no surviving process, no fork bomb")
    result = attack(
        box,
        """
        import os, sys, threading, time
        def late():
            time.sleep(0.3)
            os.write(1, b"LATE")
        threading.Thread(target=late, daemon=True).start()
        try:
            if os.fork() == 0:
                os.setsid()
                late()
                os._exit(0)
        except OSError:
            pass
        print("done")
        """,
    )
    assert (result.status, result.stdout) == (Status.OK, "done\n"), result


def test_a_stopped_program_is_ended_all_the_same(box):
    result = attack(
        box,
        "import os, signal; os.kill(os.getpid(), signal.SIGSTOP); print('went on')",
        Limits(cpu_seconds=0.2, wall_seconds=0.6),
    )
    assert result.status in (Status.OK, Status.TIMEOUT), result  # process 1 of a namespace cannot be stopped
    assert attack(box, "print('next')").stdout == "next\n"


def test_the_parents_signals_and_threads_are_untouched(box):
    """Timers, alarms and asynchronous descriptors fire in the program, or nowhere."""
    seen: list[int] = []
    watched = (signal.SIGALRM, signal.SIGUSR1, signal.SIGIO, signal.SIGPROF, signal.SIGVTALRM)
    old = [signal.signal(number, lambda number, frame: seen.append(number)) for number in watched]
    try:
        result = attack(
            box,
            """
            import ctypes, fcntl, os, signal
            libc = ctypes.CDLL(None, use_errno=True)
            for number in (14, 10, 29, 27, 26):
                signal.signal(number, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            for fd in range(3):
                for command, value in ((8, PARENT), (8, -PARENT), (10, 10), (4, 0o20000), (1026, 0x80000000 | 0x4)):
                    try:
                        fcntl.fcntl(fd, command, value)
                    except OSError:
                        pass
            os.write(1, b"done")
            """,
            PARENT=os.getpid(),
        )
    finally:
        for number, handler in zip(watched, old, strict=True):
            signal.signal(number, handler)
    assert result.stdout == "done" and not seen, (result, seen)
    assert threading.active_count() < 20


def test_zz_report(capsys):
    layers = probe()
    with capsys.disabled():
        print(f"\nsandbox: {len(layers.active)} of {len(LAYERS)} layers active; ", end="")
        print(f"{len(ran) - len(skipped)} attacks ran, {len(skipped)} skipped for want of a layer")
        for name, reason in layers.reasons.items():
            if reason:
                print(f"  not on this machine: {name}: {reason}")
