"""Every promise of the sandbox, attacked, and looked at from outside: by whether a file appeared, a socket was
accepted, a process remained. The sandboxes are those of attacks.py; less common ways in are in
test_side_doors.py.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.attacks import (
    QUICK,
    attack,
    needs,
    own_processes,
    skip,
    wait_until,
)
from tracelift.sandbox import Limits, Sandbox, SandboxError, Status
from tracelift.sandbox.inside.confine import NAMESPACES, NOBODY, OWN_IDS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")


# -- network ---------------------------------------------------------------------------------------------------------


def test_no_network(box, tmp_path):
    needs(box, "no network")
    listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)]
    listeners[1].bind(f"\0tracelift-test-{os.getpid()}")
    listeners[2].bind(str(tmp_path / "socket"))
    for listener in listeners[1:]:
        listener.listen()
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    result = attack(
        box,
        """
        import socket, itertools
        for family, kind, address in ADDRESSES:
            try:
                s = socket.socket(family, kind)
                s.settimeout(0.2)
                s.connect(tuple(address) if isinstance(address, list) else address)
                s.send(b"secret")
                print("ESCAPED", address)
            except OSError as error:
                print("held")
        """,
        ADDRESSES=[
            (int(socket.AF_INET), int(socket.SOCK_STREAM), list(listeners[0].getsockname())),
            (int(socket.AF_UNIX), int(socket.SOCK_STREAM), listeners[1].getsockname()),
            (int(socket.AF_UNIX), int(socket.SOCK_STREAM), str(tmp_path / "socket")),
            (int(socket.AF_INET), int(socket.SOCK_DGRAM), list(udp.getsockname())),
        ],
    )
    assert result.stdout.split() == ["held"] * 4, result
    for listener in [*listeners, udp]:
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.recv(1) if listener is udp else listener.accept()
        listener.close()


# -- files -----------------------------------------------------------------------------------------------------------


def test_no_reading_outside(box, tmp_path, monkeypatch):
    needs(box, "no files outside the interpreter and the working folder")
    secret = "the-secret-7f3a"
    (tmp_path / "secret.txt").write_text(secret)
    os.chmod(tmp_path, 0o777)
    result = attack(
        box,
        """
        import os
        os.symlink(SECRET, "link")
        paths = [SECRET, "link", "/etc/passwd", "/etc/hostname", "/proc/self/environ", "/proc/1/environ",
                 f"/proc/{PARENT}/environ", f"/proc/{PARENT}/root" + SECRET, "/proc/self/root" + SECRET,
                 "/proc/1/cwd", "/sys/kernel/vmcoreinfo", "/dev/mem", "/dev/kmsg", "/dev/vda", "/.." + SECRET]
        paths += ["/proc/self/maps", "../" * 30 + SECRET[1:]]
        for path in paths:
            try:
                print("ESCAPED", path, open(path, "rb").read(200))
            except OSError:
                print("held")
        for path in ("/home", "/root", os.path.dirname(SECRET), "/etc", "/proc", "/sys"):
            try:
                print("ESCAPED", path, os.listdir(path))
            except OSError:
                print("held")
        """,
        SECRET=str(tmp_path / "secret.txt"),
        PARENT=os.getpid(),
    )
    if box.layers.reasons["mount"]:
        assert set(result.stdout.split()) == {"held"}, result
    else:  # in the new root such folders exist only as the way to the interpreter's own
        lines = [line for line in result.stdout.splitlines() if line != "held"]
        folders = [line.split()[1] for line in lines]
        assert set(folders) <= {"/root", "/home", "/etc"} and "secret" not in result.stdout, result
        assert not any("passwd" in line or ".ssh" in line or ".bash" in line for line in lines), result
    assert result.status is Status.OK


def test_parent_environment_is_not_there(box, monkeypatch):
    result = attack(box, "import os; print(sorted(os.environ))")
    allowed = (
        "HOME LANG LC_ALL LD_LIBRARY_PATH MKL_NUM_THREADS OMP_NUM_THREADS OPENBLAS_NUM_THREADS PATH PYTHONHASHSEED"
    )
    assert set(json.loads(result.stdout.replace("'", '"'))) <= set(allowed.split()) | {"PYTHONUTF8", "TMPDIR", "TZ"}


def test_no_writing_outside(box, tmp_path, victim):
    needs(box, "no files outside the interpreter and the working folder")
    name = f"tracelift-escape-{os.getpid()}"
    result = attack(
        box,
        """
        import os
        def each(*actions):
            for action in actions:
                try:
                    action()
                    print("ESCAPED", action)
                except OSError:
                    print("held")
        each(lambda: open(FOLDER + "/new", "w"), lambda: open(VICTIM, "w"), lambda: os.unlink(VICTIM),
             lambda: os.truncate(VICTIM, 0), lambda: os.chmod(VICTIM, 0o777), lambda: os.rename(VICTIM, FOLDER + "/b"),
             lambda: os.mkdir("/" + NAME), lambda: open("/dev/shm/" + NAME, "w"), lambda: open("/var/tmp/" + NAME, "w"),
             lambda: open(os.__file__, "a"), lambda: os.mkdir(os.path.dirname(os.__file__) + "/" + NAME),
             lambda: os.link(VICTIM, "hard"), lambda: os.mknod(FOLDER + "/device", 0o60666, 0x801))
        """,
        FOLDER=str(tmp_path),
        VICTIM=str(victim),
        NAME=name,
    )
    assert result.stdout.split() == ["held"] * 13, result
    assert victim.stat().st_mode & 0o777 == 0o666
    assert victim.read_text() == "whole" and sorted(os.listdir(tmp_path)) == ["victim"]
    assert not any(os.path.exists(f"{folder}/{name}") for folder in ("", "/dev/shm", "/var/tmp"))


def test_the_working_folder_is_private_and_vanishes(box):
    code = "import os; print(os.listdir('.')); open('mine', 'w').write('x'); print(open('mine').read(), os.getcwd())"
    first, second = attack(box, code), attack(box, code)
    assert first.stdout.startswith("[]\nx ") and second.stdout.startswith("[]\nx ")
    assert not os.path.exists(first.stdout.split()[-1] + "/mine")


# -- processes -------------------------------------------------------------------------------------------------------

SURVIVE = {
    "double fork": "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(60)\n  os._exit(0)",
    "daemon with closed streams": (
        "if os.fork() == 0:\n    os.setsid(); os.closerange(0, 64)\n"
        "    for s in range(1, 32):\n        try: signal.signal(s, signal.SIG_IGN)\n        except OSError: pass\n"
        "    time.sleep(60)"
    ),
    "posix_spawn": "os.posix_spawn(sys.executable or '/bin/sh', ['x', '-c', 'while :; do :; done'], {})",
    "subprocess": "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)",
    "raw clone": "ctypes.CDLL(None).syscall(56 if 'x86' in platform.machine() else 220, 17, 0, 0, 0); time.sleep(60)",
    "vfork thread": "import threading; threading.Thread(target=lambda: time.sleep(60), daemon=True).start()",
}


@pytest.mark.parametrize("way", SURVIVE)
def test_no_surviving_process(box, way):
    needs(box, "no surviving process, no fork bomb")
    before = own_processes()
    head = "import os, sys, time, signal, subprocess, ctypes, platform\n"
    result = box.run(head + SURVIVE[way], limits=Limits(cpu_seconds=0.5, wall_seconds=1.0))
    assert result.status is not Status.ERROR, result
    assert wait_until(lambda: own_processes() <= before), "a process outlived its program"


def test_no_fork_bomb(box):
    needs(box, "no surviving process, no fork bomb")
    before = own_processes()
    result = attack(
        box,
        """
        import os
        made = 0
        while True:
            try:
                if os.fork() == 0:
                    while True:
                        pass
                made += 1
            except OSError:
                print(made, flush=True)
                break
        """,
    )
    most = QUICK.threads if "own_id" in box.layers.active else 1000  # ids that are shared have room for all
    assert int(result.stdout or 0) < most if box.kind != "all layers" else result.stdout == "0\n", result
    assert wait_until(lambda: own_processes() <= before)
    assert attack(box, "print('next')").stdout == "next\n"


def test_no_thread_bomb(box):
    result = attack(
        box,
        """
        import threading, time
        started = 0
        try:
            for _ in range(1000):
                threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
                started += 1
        except RuntimeError:
            pass
        print(started)
        """,
        limits=Limits(cpu_seconds=1, wall_seconds=3, threads=16, memory_bytes=512 << 20),
    )
    assert int(result.stdout) < (16 if "own_id" in box.layers.active else 64), result


# -- signals, tracing, verdicts --------------------------------------------------------------------------------------


def test_no_signal_reaches_anyone(box):
    needs(box, "no signal to, or tracing of, other processes")
    received = []
    old = signal.signal(signal.SIGUSR1, lambda number, frame: received.append(number))
    launcher = box._launcher.process.pid
    try:
        result = attack(
            box,
            """
            import os, signal, fcntl
            for pid, number in ((PARENT, signal.SIGUSR1), (LAUNCHER, signal.SIGKILL), (0, signal.SIGUSR1),
                                (-1, signal.SIGUSR1),
                                (os.getppid(), signal.SIGKILL), (-PARENT, signal.SIGUSR1)):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
            read, write = os.pipe()
            try:
                fcntl.fcntl(read, fcntl.F_SETOWN, PARENT); fcntl.fcntl(read, 10, signal.SIGUSR1)
                fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK); os.write(write, b"x")
            except OSError:
                pass
            """,
            PARENT=os.getpid(),
            LAUNCHER=launcher,
        )
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert result.status is not Status.ERROR, result
    assert not received and box._launcher.process.poll() is None and box._launcher.process.pid == launcher


def test_no_tracing_and_no_privileged_calls(box):
    needs(box, "no signal to, or tracing of, other processes")
    result = attack(
        box,
        """
        import ctypes, platform
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(64)
        span = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
        X86 = platform.machine() == "x86_64"
        calls = {
            "ptrace attach": lambda: libc.ptrace(16, PARENT, 0, 0),
            "process_vm_readv": lambda: libc.process_vm_readv(PARENT, span, 1, span, 1, 0),
            "pidfd_open": lambda: libc.syscall(434, PARENT, 0),
            "setuid 0": lambda: libc.setuid(0) or (0 if libc.getuid() != 0 else -1),
            "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
            "chroot": lambda: libc.chroot(b"/tmp"),
            "unshare network": lambda: libc.unshare(0x40000000),
            "setns": lambda: libc.setns(0, 0),
            "bpf": lambda: libc.syscall(321 if X86 else 280, 0, buffer, 64),
            "perf_event_open": lambda: libc.syscall(298 if X86 else 241, buffer, 0, -1, -1, 0),
            "open_by_handle_at": lambda: libc.syscall(304 if X86 else 265, -100, buffer, 0),
            "init_module": lambda: libc.syscall(175 if X86 else 105, buffer, 64, b""),
            "reboot": lambda: libc.reboot(0),
            "swapoff": lambda: libc.swapoff(b"/x"),
        }
        for name, call in calls.items():
            if call() >= 0:
                print("ESCAPED", name)
        print("done")
        """,
        PARENT=os.getpid(),
    )
    assert result.stdout == "done\n", result


def test_seccomp_refuses_what_namespaces_would_allow(box):
    if box.layers.reasons["seccomp"]:
        skip("seccomp is off in this sandbox")
    result = attack(
        box,
        """
        import ctypes, errno, platform
        libc = ctypes.CDLL(None, use_errno=True)
        X86 = platform.machine() == "x86_64"
        numbers = {"io_uring_setup": 425, "userfaultfd": 323 if X86 else 282, "memfd_create": 319 if X86 else 279,
                   "keyctl": 250 if X86 else 219, "unshare": 272 if X86 else 97, "socket": 41 if X86 else 198,
                   "execve": 59 if X86 else 221, "a call not yet invented": 460, "pidfd_open": 434, "pidfd_getfd": 438,
                   "pidfd_send_signal": 424, "process_madvise": 440, "ptrace": 101 if X86 else 117,
                   "process_vm_readv": 310 if X86 else 270, "process_vm_writev": 311 if X86 else 271,
                   "kcmp": 312 if X86 else 272, "perf_event_open": 298 if X86 else 241, "add_key": 248 if X86 else 217,
                   "request_key": 249 if X86 else 218, "connect": 42 if X86 else 203, "sendmsg": 46 if X86 else 211,
                   "recvmsg": 47 if X86 else 212, "setsockopt": 54 if X86 else 208, "shmget": 29 if X86 else 194,
                   "mq_open": 180, "vmsplice": 278 if X86 else 75, "tkill": 200 if X86 else 130,
                   "rt_sigqueueinfo": 129 if X86 else 138, "sched_setaffinity": 203 if X86 else 122,
                   "name_to_handle_at": 303 if X86 else 264, "fanotify_init": 300 if X86 else 262,
                   "inotify_init1": 294 if X86 else 26, "personality": 135 if X86 else 92, "mknodat": 259 if X86 else 33,
                   "memfd_secret": 447, "setpriority": 141 if X86 else 140, "clock_settime": 227 if X86 else 112}
        for name, number in numbers.items():
            result, error = libc.syscall(number, 0x10000000, 0, 0, 0, 0), ctypes.get_errno()
            if result >= 0 or error != errno.EPERM:
                print("ESCAPED", name, result, error)
        if libc.syscall(435, 0, 0) >= 0 or ctypes.get_errno() != errno.ENOSYS:
            print("clone3 must not exist, or threads break")
        print("done", flush=True)
        if X86:
            libc.syscall(0x40000000 + 41, 2, 1, 0)      # socket, by its x32 number
            print("ESCAPED x32")
        """,
    )
    assert result.stdout == "done\n", result
    if os.uname().machine == "x86_64":
        assert result.exit_code == -signal.SIGSYS


def test_no_identity_and_no_capabilities(box):
    result = attack(box, "import os; print(os.getuid(), os.getgroups())")
    if not box.layers.reasons["unprivileged"]:
        uid, own = int(result.stdout.split()[0]), box.layers.reasons["user"] and os.geteuid() != 0
        assert uid in (OWN_IDS if "own_id" in box.layers.active else [NOBODY, own and os.geteuid()]), result


def test_only_its_own_descriptors(box):
    result = attack(
        box,
        """
        import os
        def is_open(fd):
            try:
                os.fstat(fd)
                return True
            except OSError:
                return False
        print([fd for fd in range(4096) if is_open(fd)])
        """,
    )
    assert result.stdout == "[0, 1, 2]\n", result


def test_no_forged_report(box):
    """Messages in the guard's own words, written to everything that can be written to, then a crash."""
    result = attack(
        box,
        """
        import json, os
        report = json.dumps(dict(state="ended", reason="exit", code=0, seconds=0, cpu_seconds=0, peak_bytes=0)).encode()
        for fd in range(1, 1024):
            try:
                os.write(fd, report)
            except OSError:
                pass
        os.abort()
        """,
    )
    assert result.status is Status.RUNTIME_ERROR and result.exit_code != 0, result


def test_the_launchers_code_is_no_way_out(box):
    """What the program can find of our modules in its own process serves it for nothing."""
    result = attack(
        box,
        """
        import gc, os, sys, types
        frame = sys._getframe()
        while frame is not None:
            for value in list(frame.f_locals.values()):
                if type(value).__name__ == "socket" and value.fileno() >= 0:
                    try:
                        print("ESCAPED", os.write(value.fileno(), b"{}"))
                    except OSError:
                        pass  # an object whose descriptor is long closed
            frame = frame.f_back
        for thing in gc.get_objects():
            if isinstance(thing, types.ModuleType) and thing.__name__.endswith("guard"):
                thing.report = print
        sys.exit(7)
        """,
    )
    assert (result.status, result.exit_code, result.stdout) == (Status.RUNTIME_ERROR, 7, ""), result


# -- the machine behind it -------------------------------------------------------------------------------------------


def test_programs_die_with_their_parent(tmp_path):
    script = textwrap.dedent(
        """
        import os, threading, time
        from tracelift.sandbox import Limits, Sandbox
        box = Sandbox(workers=1)
        limits = Limits(cpu_seconds=1, wall_seconds=60)
        threading.Thread(target=box.run, args=("import time; time.sleep(60)", "", limits)).start()
        time.sleep(0.5)
        print(os.getpid(), flush=True)
        time.sleep(60)
        """
    )
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        pid = parent.stdout.readline().strip()
        token = f'"owner": {pid}'
        assert pid and wait_until(lambda: len(own_processes(token)) >= 3), "launcher, guard and program should be there"
    finally:
        parent.kill()
        parent.communicate()
    assert wait_until(lambda: not own_processes(token)), "something outlived a killed parent"


def test_a_killed_guard_or_launcher_is_an_error_and_is_replaced():
    import threading

    def kill_at_work(box, victim):
        results = []
        running = box.start("import time; time.sleep(20)", b"", Limits(cpu_seconds=1, wall_seconds=20))
        thread = threading.Thread(target=lambda: results.extend(box.gather([running])))
        thread.start()
        launcher = box._launcher.process.pid
        children = Path(f"/proc/{launcher}/task/{launcher}/children")
        assert wait_until(lambda: running.state == "running")
        os.kill(launcher if victim == "launcher" else int(children.read_text().split()[0]), signal.SIGKILL)
        thread.join(timeout=15)
        return results

    with Sandbox(workers=1) as box:
        for victim in ("guard", "launcher"):
            results = kill_at_work(box, victim)
            assert results and results[0].status is Status.ERROR, (victim, results)
            assert box.run("print(1)").stdout == "1\n"


def test_it_refuses_without_its_floor(caplog):
    without = [*NAMESPACES, "landlock", "seccomp"]
    with pytest.raises(SandboxError, match="no network or no files outside.*allow_weak_sandbox"):
        Sandbox(workers=1, without=without)
    with Sandbox(workers=1, without=without, allow_weak_sandbox=True) as box:
        assert box.run("print(6 * 7)").stdout == "42\n"
    assert "WEAK SANDBOX" in caplog.text
