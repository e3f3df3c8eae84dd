"""What a program may use is bounded, what an honest program needs is there, and how it ended is told truly."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from tracelift.sandbox import Limits, Sandbox, SandboxError, Status, run_python
from tracelift.sandbox.inside import seccomp, wire
from tracelift.sandbox.inside.confine import LAYERS, NAMESPACES

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")

QUICK = Limits(cpu_seconds=0.5, wall_seconds=60.0)  # a generous wall clock: other work on the machine is no failure
MIB = 1 << 20


def run(box, code, stdin="", limits=QUICK):
    return box.run(textwrap.dedent(code), stdin, limits)


# -- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import signal\n"
        "for s in range(1, 32):\n  try: signal.signal(s, signal.SIG_IGN)\n  except OSError: pass\nwhile True: pass",
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
        "import threading\nfor _ in range(3): threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
        "10 ** 10 ** 8",
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass",
    ],
    ids=["loop", "signals ignored", "everything caught", "threads", "one long C call", "own rlimit"],
)
def test_cpu_time_is_bounded(box, code):
    result = run(box, code)
    assert result.status is Status.TIMEOUT and "CPU" in result.detail, result
    assert 0.5 <= result.cpu_seconds < 1.5


@pytest.mark.parametrize(
    "code", ["import time; time.sleep(60)", "import os; os.read(os.pipe()[0], 1)", "import signal; signal.pause()"]
)
def test_wall_time_is_bounded_though_no_cpu_is_used(box, code):
    result = run(box, code, limits=Limits(cpu_seconds=0.3, wall_seconds=0.6))
    assert result.status is Status.TIMEOUT and "still running" in result.detail and result.cpu_seconds < 0.3, result


def test_waiting_is_not_charged_as_cpu(box):
    assert (
        run(box, "import time; time.sleep(0.7); print('up')", limits=Limits(cpu_seconds=0.4, wall_seconds=60)).stdout
        == "up\n"
    )


def test_a_hung_program_does_not_keep_a_worker():
    with Sandbox(workers=1) as one:
        hung = [threading.Thread(target=one.run, args=("while True: pass", "", QUICK)) for _ in range(3)]
        for thread in hung:
            thread.start()
        assert one.run("print('after')").stdout == "after\n"
        for thread in hung:
            thread.join()


def test_memory_is_bounded(box):
    result = run(box, "print('start', flush=True)\nx = bytearray(900 << 20)", limits=Limits(memory_bytes=512 * MIB))
    assert (result.status, result.stdout) == (Status.RUNTIME_ERROR, "start\n") and "MemoryError" in result.stderr
    assert result.peak_bytes < 512 * MIB


def test_files_are_bounded(box):
    result = run(
        box,
        """
        def attempt(action):
            try:
                action()
                print("ESCAPED")
            except OSError as error:
                print(error.errno)
        def large():
            with open("large", "wb") as f:
                f.write(bytes(2 << 20))
        def many():
            for i in range(40):
                with open(f"part{i}", "wb") as f:
                    f.write(bytes(900 << 10))
        attempt(large)
        attempt(lambda: [open("f", "w") for _ in range(100)] and None)
        many() if not DISK else attempt(many)
        """.replace("DISK", repr("mount" in box.layers.active)),
        limits=Limits(file_bytes=MIB, disk_bytes=8 * MIB, open_files=32, cpu_seconds=2),
    )
    import errno

    expected = [errno.EFBIG, errno.EMFILE] + ([errno.ENOSPC] if "mount" in box.layers.active else [])
    assert [int(n) for n in result.stdout.split()] == expected, result


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_flood_costs_the_parent_no_more_than_the_bound(box, stream):
    limits = Limits(output_bytes=MIB, cpu_seconds=5, wall_seconds=60)
    tracemalloc.start()
    result = run(box, f"import sys\nwhile True: sys.{stream}.write('flood' * 10000)", limits=limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.status is Status.OUTPUT_LIMIT and len(getattr(result, stream)) == MIB, result.detail
    assert peak < 8 * MIB, peak


def test_exactly_the_bound_is_no_flood(box):
    limits = Limits(output_bytes=10_000)
    assert run(box, "print('x' * 9999)", limits=limits).status is Status.OK
    assert run(box, "print('x' * 10000)", limits=limits).status is Status.OUTPUT_LIMIT


def test_honest_output_is_whole_on_both_streams(box):
    code = """
        import sys
        for i in range(20000):
            print(f"{i:05d}")
            print(f"{i:05d}", file=sys.stderr)
        """
    result = run(box, code, limits=Limits(cpu_seconds=5, wall_seconds=60))
    wanted = "".join(f"{i:05d}\n" for i in range(20000))
    assert (result.status, result.stdout, result.stderr) == (Status.OK, wanted, wanted)


def test_large_input_arrives_whole_or_unread(box):
    text = "0123456789abcde\n" * (1 << 18)  # 4 MiB: far more than a pipe holds
    assert run(box, "import sys; print(len(sys.stdin.read()))", text, Limits()).stdout == f"{len(text)}\n"
    assert run(box, "print('did not ask')", text).stdout == "did not ask\n"


def test_limits_are_checked():
    with pytest.raises(ValueError, match="cpu_seconds must be a positive number, got 0"):
        Limits(cpu_seconds=0)
    with pytest.raises(ValueError, match="wall_seconds.*below cpu_seconds"):
        Limits(cpu_seconds=5, wall_seconds=1)


# -- how it ended ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, status, exit_code, stdout",
    [
        ("print('a')", "ok", 0, "a\n"),
        ("", "ok", 0, ""),
        ("import sys; print('a'); sys.exit()", "ok", 0, "a\n"),
        ("print('a'); exit(0)", "ok", 0, "a\n"),
        ("import sys; print('a'); sys.exit(3)", "runtime_error", 3, "a\n"),
        ("import sys; sys.exit('message')", "runtime_error", 1, ""),
        ("import os; print('lost'); os._exit(0)", "ok", 0, ""),
        ("raise KeyboardInterrupt", "runtime_error", 1, ""),
        ("1 / 0", "runtime_error", 1, ""),
        ("import atexit; atexit.register(print, 'last'); print('first')", "ok", 0, "first\nlast\n"),
        (
            "import threading, time; threading.Thread(target=lambda: (time.sleep(.1), print('late'))).start()",
            "ok",
            0,
            "late\n",
        ),
        ("def f(:", "compile_error", None, ""),
        ("print('a')\n  print('b')", "compile_error", None, ""),
        ("print('nul\0')", "compile_error", None, ""),
        ("return 5", "compile_error", None, ""),
        pytest.param("(" * 5000 + ")" * 5000, "compile_error", None, "", id="deep parentheses"),
        pytest.param("-" * 200_000 + "1", "compile_error", None, "", id="deep signs"),
        ("print('\udc80')", "compile_error", None, ""),
        ("import ctypes; ctypes.string_at(0)", "runtime_error", -11, ""),
        ("if __name__ == '__main__': print(__name__)", "ok", 0, "__main__\n"),
        ("import sys; sys.stdout = None; print('nothing')", "ok", 0, ""),
        ("import sys; sys.stdout.close()", "ok", 0, ""),
    ],
)
def test_endings(box, code, status, exit_code, stdout):
    result = box.run(code, "", Limits())
    assert (result.status, result.exit_code, result.stdout) == (status, exit_code, stdout), result


@pytest.mark.parametrize(
    "code, stdin",
    [
        ("import sys\nfor line in sys.stdin: print(line.strip()[::-1])", "abc\ndéf\n"),
        ("print(input()); print(input())", "one\r\ntwo"),
        ("a, b = map(int, input().split()); print(a // b)", "7 0"),
        ("print(open(0).read())", "all"),
        ("def f(n): return f(n + 1)\nf(0)", ""),
        ("class A:\n  def __repr__(self): return 'é'\nprint([A()], end='')\nraise ValueError('ß')", ""),
        ("import sys; print(sys.argv[1:], __name__, sys.stdin.encoding, sys.stdout.encoding)", ""),
        ("print(input())", ""),
    ],
)
def test_it_behaves_like_the_interpreter(box, code, stdin, tmp_path):
    """The oracle is the interpreter itself, run on the same file."""
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, "-I", "-X", "utf8", "program.py"]
    real = subprocess.run(command, input=stdin.encode(), capture_output=True, cwd=tmp_path)
    mine = run(box, code, stdin, Limits())
    assert (mine.stdout, mine.exit_code) == (real.stdout.decode(), real.returncode), mine
    path = str(tmp_path / "program.py")
    assert mine.stderr == real.stderr.decode().replace(path, "program.py"), (mine.stderr, real.stderr.decode())


def test_recursion_is_as_deep_as_in_the_interpreter(box, tmp_path):
    code = "def f(n):\n  try: return f(n + 1)\n  except RecursionError: return n\nprint(f(0))"
    real = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert int(run(box, code).stdout) == int(real.stdout)


@pytest.mark.parametrize("without", [(), ("landlock", "seccomp"), NAMESPACES], ids=["all", "namespaces", "filters"])
def test_what_honest_programs_use_is_there(without):
    try:
        box = Sandbox(workers=1, without=without)
    except SandboxError as error:
        pytest.skip(str(error))
    result = run(
        box,
        """
        import asyncio, collections, concurrent.futures, csv, dataclasses, decimal, enum, fractions
        import hashlib, heapq, json, queue, random, re, sqlite3, statistics, string, tempfile, typing
        import unicodedata, zlib, datetime, ctypes
        async def answer():
            await asyncio.sleep(0.001)
            return 42
        print(asyncio.run(answer()))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            print(sum(pool.map(lambda x: x * x, range(10))))
        with tempfile.TemporaryDirectory() as d:
            with open(d + "/f", "w") as f:
                f.write("text")
            print(open(d + "/f").read())
        open("/dev/null", "w").write("x")
        print(hashlib.sha256(b"x").hexdigest()[:8], datetime.datetime.now().year > 2000)
        """,
        limits=Limits(cpu_seconds=5, wall_seconds=60),
    )
    box.close()
    assert result.stdout == "42\n285\ntext\n2d711642 True\n", result


def test_it_is_deterministic():
    code = (
        "import random, os, time, sys\nprint(hash('a'), list({'x', 'zebra', 'q'}), random.random(), time.tzname[0],"
        " os.environ['OMP_NUM_THREADS'], sys.flags.no_site, sys.flags.safe_path, sys.getfilesystemencoding(), sys.argv)"
    )
    outputs = []
    for _ in range(2):
        with Sandbox(workers=1) as box:
            outputs += [box.run(code).stdout, box.run(code).stdout]
    assert len(set(outputs)) == 1 and "UTC 1 1 True utf-8 ['program.py']" in outputs[0], outputs


def test_many_at_once_each_gets_its_own(box):
    jobs = [(f"import time; time.sleep({i % 3} / 100); print(input(), {i})", str(i)) for i in range(60)]
    results = box.run_many(jobs)
    assert [r.stdout for r in results] == [f"{i} {i}\n" for i in range(60)]


def test_nothing_is_left_open(box):
    box.run("print(1)")
    before = len(os.listdir("/proc/self/fd"))
    for code in ("print(1)", "while True: print(1)", "1/0", "def", "import os; os.kill(os.getpid(), 9)") * 3:
        run(box, code)
    assert len(os.listdir("/proc/self/fd")) == before
    children = Path(f"/proc/{box._launcher.process.pid}/task/{box._launcher.process.pid}/children")
    end = time.monotonic() + 5
    while children.read_text() and time.monotonic() < end:
        time.sleep(0.01)
    assert children.read_text() == "", "guards remain"


@pytest.mark.parametrize("layer", LAYERS)
def test_no_single_layer_is_indispensable(layer):
    """A kernel that refuses any one of them still runs programs, and no wrong layer is reported active."""
    try:
        box = Sandbox(workers=1, without=[layer], allow_weak_sandbox=True)
    except SandboxError as error:
        pytest.skip(str(error))
    with box:
        result = box.run(
            "open('f', 'w').write('x')\ntry: print(open('/etc/passwd').read())\nexcept OSError: print('held')"
        )
        assert box.layers.reasons[layer] and layer not in box.layers.active
        assert result.stdout == "held\n" or "no files" in str(box.layers.missing), result


def test_a_launcher_that_does_not_start_says_so(monkeypatch):
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    with pytest.raises(SandboxError, match="launcher .*/bin/false.* does not start"):
        Sandbox(workers=1)


def test_a_closed_sandbox_says_so():
    with Sandbox(workers=1) as box:
        pass
    with pytest.raises(SandboxError, match="closed"):
        box.run("print(1)")


def test_the_shared_sandbox_survives_a_fork():
    assert run_python("print(1)").stdout == "1\n"
    pid = os.fork()
    if pid == 0:
        os._exit(0 if run_python("print(2)").stdout == "2\n" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert run_python("print(3)").stdout == "3\n"


def test_the_probe_is_a_command():
    done = subprocess.run([sys.executable, "-m", "tracelift.sandbox", "--probe"], capture_output=True, text=True)
    assert "layers:" in done.stdout and "no network" in done.stdout, done
    assert (done.returncode == 0) == (
        "NOT KEPT  no network" not in done.stdout and "NOT KEPT  no files" not in done.stdout
    )


# -- the parts that can be judged without a kernel -------------------------------------------------------------------


def evaluate(code: list[bytes], arch: int, number: int, *args: int) -> int:
    """An independent interpreter of classic BPF, as far as seccomp filters use it."""
    import struct

    data = struct.pack("<iIQ6Q", number, arch, 0, *(list(args) + [0] * (6 - len(args))))
    at, accumulator = 0, 0
    while True:
        operation, true, false, k = struct.unpack("<HBBI", code[at])
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x06:
            return k
        else:
            test = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[operation]
            at += true if test else false


@pytest.mark.parametrize("machine, arch", [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_the_filter_decides_as_written(machine, arch):
    code = seccomp.build(machine, pid=77)
    nr = seccomp.numbers(machine)
    allow, refuse, kill, absent = 0x7FFF0000, 0x50001, 0x80000000, 0x50026

    def decide(number, *args):
        return evaluate(code, arch, number, *args)

    assert len(code) < 4096
    assert all(decide(n) == allow for name, n in nr.items() if name not in seccomp.FILTERED)
    allowed = set(nr.values())
    assert all(decide(n) == refuse for n in range(600) if n not in allowed)
    assert evaluate(code, 0x40000003, nr["read"]) == kill  # 32-bit x86 numbers mean other calls
    threads = 0x3D0F00  # what glibc's pthread_create passes
    assert decide(nr["clone"], threads) == allow
    assert decide(nr["clone"], 0x11) == refuse and decide(nr["clone"], 0x4111) == refuse  # fork, vfork
    assert decide(nr["clone"], threads | 0x40000000) == refuse  # a thread in a new network namespace
    assert decide(nr["clone3"], 1) == absent
    assert decide(nr["kill"], 77, 9) == allow and decide(nr["kill"], 1, 9) == refuse
    assert decide(nr["kill"], 0xFFFFFFFF, 9) == refuse and decide(nr["kill"], 0, 9) == refuse
    assert (
        decide(nr["ioctl"], 0, 0x5401) == allow and decide(nr["ioctl"], 0, 0x5412) == refuse
    )  # TIOCSTI types for others
    assert decide(nr["sendto"], 3, 0x1000, 6, 0, 0, 0) == allow  # send
    assert decide(nr["sendto"], 3, 0x1000, 6, 0, 0x7F00, 10) == refuse  # to an address, wherever it lies in memory
    assert decide(nr["sendto"], 3, 0x1000, 6, 0, 0x7F0000000000, 10) == refuse
    assert decide(nr["socketpair"], 1) == allow and decide(nr["socketpair"], 30) == refuse
    assert decide(nr["fcntl"], 0, 1) == allow and decide(nr["fcntl"], 0, 8) == refuse
    if machine == "x86_64":
        assert decide(0x40000000 | nr["read"]) == kill


@pytest.mark.parametrize("machine, arch", [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_files_are_cut_only_where_they_are_written(machine, arch):
    """The filter where nothing else watches over truncation; elsewhere it lets all of these through."""
    nr = seccomp.numbers(machine)
    strict, lax = seccomp.build(machine, 77, False), seccomp.build(machine, 77)
    allow, refuse, absent = 0x7FFF0000, 0x50001, 0x50026
    opens = [("openat", 2)] + [("open", 1)] * (machine == "x86_64")
    for flags in (mode | other for mode in range(4) for other in (0, 0x40, 0x200, 0x240, 0x80000, 0x80200)):
        wanted = refuse if flags & 0x200 and flags & 3 not in (1, 2) else allow
        for name, place in opens:
            arguments = [0x200] * place + [flags]
            assert evaluate(strict, arch, nr[name], *arguments) == wanted, (name, hex(flags))
            assert evaluate(lax, arch, nr[name], *arguments) == allow
    assert evaluate(strict, arch, nr["truncate"], 0, 0) == refuse and evaluate(lax, arch, nr["truncate"], 0, 0) == allow
    assert evaluate(strict, arch, nr["openat2"]) == absent and evaluate(strict, arch, nr["ftruncate"], 3, 0) == allow


@pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with this machine's own headers")
def test_call_numbers_are_the_kernels():
    import re
    from pathlib import Path

    for machine, path in (
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ):
        if not Path(path).exists():
            pytest.skip(f"{path} is not installed")
        text = Path(path).read_text()
        found = {name: int(n) for name, n in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text)}
        found.setdefault("newfstatat", found.get("fstatat"))
        mine = seccomp.numbers(machine)
        assert {n: found[n] for n in mine if n in found} == {n: mine[n] for n in mine if n in found}
        assert len(set(mine) - set(found)) <= 2, set(mine) - set(found)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -5,
        10**5000,
        2.5,
        float("inf"),
        "é\ud800",
        b"\x00\xff",
        [1, [2]],
        (),
        (1,),
        {1: (2,)},
        {(1, 2): {3}},
        frozenset({1}),
        set(),
        1j,
        range(1, 9, 2),
        {"int": "x"},
        {"handle": 3},
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values_travel_unchanged(value):
    import json

    item = json.loads(wire.line({"v": wire.encode(value)}))["v"]
    back = wire.decode(item)
    assert back == value and type(back) is type(value)


def test_values_that_are_not_plain_are_refused():
    with pytest.raises(wire.Unplain):
        wire.encode(object())
    for item in ({}, {"set": [[]]}, {"int": "zz"}, {"tuple": 5}, {"other": 1}, {"handle": 1}, {"a": 1, "b": 2}):
        with pytest.raises(wire.Unplain):
            wire.decode(item)
