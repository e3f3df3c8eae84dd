"""What an older kernel, a container's profile or an ordinary user's account takes away: something else keeps the promise, or
the probe says by name what is missing."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support.attacks import ADD_KEY, attack, skip
from tracelift.programs import judge, parse_tests
from tracelift.sandbox import Limits, Sandbox, SandboxError, Status
from tracelift.sandbox.inside import seccomp
from tracelift.sandbox.inside.confine import NAMESPACES
from tracelift.sandbox.layers import FILES, PROMISES, Layers

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
ROOT = Path(__file__).parents[3]


def opened(**how) -> Sandbox:
    try:
        return Sandbox(**how)
    except SandboxError as error:
        pytest.skip(str(error))


# -- Landlock before ABI 3 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_unknown", [2, 3, 4, 5, 6])
def test_no_file_is_cut_under_an_old_landlock(victim, first_unknown):
    """Filters alone, on a kernel whose Landlock does not watch truncation: Linux 5.13 to 6.1 in default Docker."""
    with opened(workers=1, without=[*NAMESPACES, f"landlock ABI {first_unknown}"]) as box:
        if box.layers.reasons["landlock"] or box.layers.reasons["seccomp"]:
            skip("this kernel has no Landlock or no seccomp")
        assert box.layers.landlock_abi == first_unknown - 1
        result = attack(
            box,
            """
            import ctypes, os
            open("mine", "w").write("whole"); open("mine", "w").write("anew")
            with open("mine", "r+") as f:
                f.truncate(2)
            print(open("mine").read())
            libc = ctypes.CDLL(None, use_errno=True)
            for name in (VICTIM, os.__file__):
                for way in (lambda: os.truncate(name, 0), lambda: os.open(name, os.O_RDONLY | os.O_TRUNC),
                            lambda: os.open(name, 3 | os.O_TRUNC), lambda: os.open(name, os.O_WRONLY | os.O_TRUNC),
                            lambda: open(name, "w"),
                            lambda: os.open(os.path.basename(name), os.O_TRUNC, dir_fd=os.open(os.path.dirname(name), os.O_PATH))):
                    try:
                        way()
                        print("ESCAPED")
                    except OSError:
                        pass
                how = (ctypes.c_uint64 * 3)(os.O_TRUNC, 0, 0)
                if libc.syscall(437, -100, name.encode(), how, 24) >= 0:
                    print("ESCAPED by openat2")
            print("done")
            """,
            VICTIM=str(victim),
        )  # fmt: skip
    assert result.stdout == "an\ndone\n", result
    assert victim.read_text() == "whole" and os.path.getsize(os.__file__) > 1000


def test_it_is_no_floor_without_seccomp():
    with pytest.raises(SandboxError, match="no files outside"):
        Sandbox(workers=1, without=[*NAMESPACES, "seccomp", "landlock ABI 3"])


def layers_of(abi: int, *lacking: str) -> Layers:
    return Layers(
        {name: "not here" if name in lacking else "" for ways in PROMISES.values() for w in ways for name in w}, abi
    )


@pytest.mark.parametrize("abi", range(1, 8))
def test_the_probe_names_what_an_abi_does_not_watch(abi):
    layers = layers_of(abi)
    told = [what for what in ("truncation", "TCP", "device ioctl", "signals and abstract") if what in layers.report()]
    assert len(told) == (abi < 3) + (abi < 4) + (abi < 5) + (abi < 6)
    assert layers_of(abi, "mount", "seccomp").keeps(FILES) == (abi >= 3)
    assert layers_of(abi, "mount").keeps(FILES) and layers_of(abi, "landlock", "seccomp").keeps(FILES)


# -- keys ------------------------------------------------------------------------------------------------------------


def test_no_key_is_left_for_the_next_program(box):
    """The kernel's keyrings belong to a session or a user id, and outlive a process."""
    if platform.machine() not in ADD_KEY:
        skip("the number of add_key is not known on this machine")
    code = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        rings = [-3, -4, -5, libc.syscall(ADD_KEY + 2, 22, -1, -3)]
        found = [libc.syscall(ADD_KEY + 2, 10, ring, b"user", b"note", 0) >= 0 for ring in rings]
        made = [libc.syscall(ADD_KEY, b"user", b"note", b"text", 4, ring) >= 0 for ring in rings]
        print(any(found), any(made) and [libc.syscall(ADD_KEY + 2, 10, ring, b"user", b"note", 0) >= 0 for ring in rings[:1]])
        """
    results = [attack(box, code, ADD_KEY=ADD_KEY[platform.machine()]) for _ in range(3)]
    assert {r.stdout for r in results} <= {"False [True]\n", "False False\n"}, results
    if box.kind != "namespaces alone":
        assert results[0].stdout == "False False\n", "seccomp refuses the calls"


# -- threads of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [[], ["own_id"], [*NAMESPACES], [*NAMESPACES, "own_id"]], ids=str)
def test_threads_of_others_are_not_ones_own(without):
    limits = Limits(cpu_seconds=5, wall_seconds=60, memory_bytes=8 << 30)  # of stacks and arenas, which are not used
    with opened(workers=4, without=without) as box:
        sleepers = [
            box.start(
                "import threading, time\nfor _ in range(25): threading.Thread(target=time.sleep, args=(50,)).start()\n"
                "print('up', flush=True)",
                b"",
                limits,
            )
            for _ in range(6)
        ]
        try:
            for p in sleepers:
                assert os.read(next(iter(p.streams)), 3) == b"up\n"
            honest = "import threading\nts = [threading.Thread(target=print, args=(i,)) for i in range(20)]\n"
            honest += "for t in ts: t.start()\nfor t in ts: t.join()"
            result = box.run(honest, limits=limits)
            assert (result.status, len(result.stdout.split())) == (Status.OK, 20), result
            possible = os.geteuid() == 0 and not box.layers.reasons["unprivileged"]
            assert ("own_id" in box.layers.active) == (possible and "own_id" not in without)
        finally:
            for p in sleepers:
                p.stop()
            box.gather(sleepers)


def test_programs_that_run_at_once_have_ids_of_their_own():
    if os.geteuid() != 0:
        skip("only root can give programs ids")
    with opened(workers=3) as box:
        results = box.run_many([("import os, time; time.sleep(0.3); print(os.getuid())", "")] * 3)
        ids = [int(r.stdout) for r in results]
        assert len(set(ids)) == 3 and 65534 not in ids and 0 not in ids
        assert box.run("import os; print(os.getuid())").stdout == f"{min(ids)}\n", "a slot is taken again"


def test_an_ordinary_user_has_threads_too():
    """As a user with processes of their own, all programs under one id."""
    if os.geteuid() != 0:
        skip("only root can become an ordinary user")
    user = {"user": 54321, "group": 54321, "extra_groups": []}
    check = ["-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    pythons = [p for p in (sys.executable, "/usr/bin/python3") if can_run([p, *check], user)]
    if not pythons:
        skip("no interpreter here that every user can run")
    script = """
        import subprocess
        from tracelift.sandbox import Limits, Sandbox
        from tracelift.sandbox.inside.confine import NAMESPACES
        code = "import threading\\nfor _ in range(20): threading.Thread(target=print, args=(1,)).start()"
        others = [subprocess.Popen(["sleep", "60"]) for _ in range(40)]
        try:
            for without in ([], NAMESPACES):
                with Sandbox(workers=2, without=without) as box:
                    done = box.run(code, limits=Limits(cpu_seconds=5, wall_seconds=60, memory_bytes=8 << 30))
                    print(done.stdout.count("1"), "own_id" in box.layers.active)
        finally:
            for other in others:
                other.kill()
        """
    done = in_a_process(script, python=pythons[0], **user)
    if "SandboxError" in done.stderr:
        skip(f"the sandbox does not run for an ordinary user here: {done.stderr[-200:]}")
    assert done.stdout.split() == ["20", "False"] * 2, done


def can_run(command: list[str], user: dict) -> bool:
    try:
        return subprocess.run(command, **user, cwd="/").returncode == 0
    except OSError:
        return False


# -- calls and descriptors that are not there ------------------------------------------------------------------------


def in_a_process(script: str, python: str = sys.executable, **how) -> subprocess.CompletedProcess:
    command = [python, "-c", textwrap.dedent(script)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **how)


CALLS = {"memfd_create": {"x86_64": 319, "aarch64": 279}, "pidfd_open": {"x86_64": 434, "aarch64": 434}}
CALLS["socketpair"] = {"x86_64": 53, "aarch64": 199}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_is_refused_is_named(call):
    """As an old kernel or a container's profile refuses it; at once, and not by every program."""
    machine = platform.machine()
    if machine not in CALLS[call] or not seccomp.available():
        skip("this machine's call numbers are not known, or nothing can refuse one")
    done = in_a_process(f"""
        import ctypes
        from tracelift.sandbox import Sandbox, SandboxError
        from tracelift.sandbox.inside import seccomp, syscalls
        from tracelift.sandbox.inside.seccomp import op
        code = op(seccomp.LOAD, seccomp.NR) + op(seccomp.JEQ, {CALLS[call][machine]}, 0, 1)
        code += op(seccomp.RET, seccomp.REFUSE) + op(seccomp.RET, seccomp.ALLOW)
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1, call="NO_NEW_PRIVS")
        program = seccomp._Program(len(code) // 8, code)
        syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, ctypes.byref(program), call="SECCOMP")
        try:
            Sandbox(workers=1)
        except SandboxError as error:
            print(error)
        """)
    assert call in done.stdout and "refused" in done.stdout, done


@pytest.mark.parametrize("limit", [20, 40, 63])
def test_too_few_descriptors_are_named(limit):
    done = in_a_process(f"""
        import resource
        from tracelift.sandbox import Sandbox, SandboxError
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
        try:
            Sandbox(workers=1)
        except SandboxError as error:
            print(error)
        """)
    assert f"may open {limit} files" in done.stdout, done


def test_a_low_soft_limit_is_raised_for_the_launcher_alone():
    done = in_a_process("""
        import resource
        from tracelift.sandbox import Sandbox
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, hard))
        with Sandbox(workers=1) as box:
            print(box.run("print('ran')").stdout, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        """)
    assert done.stdout.split() == ["ran", "32"], done


def test_a_process_out_of_descriptors_gets_an_error_and_not_an_exception():
    with opened(workers=1) as box:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = len(os.listdir("/proc/self/fd"))
        for spare in range(16):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1 + spare, hard))
            try:
                results = [
                    judge("def f(x): return x", parse_tests([t]), sandbox=box)
                    for t in ("assert f(1)", "assert f(1) - 0")
                ]
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for result in results:
                assert result.passed or (result.status == "error" and "ulimit -n" in result.summary()), (spare, result)
            assert len(os.listdir("/proc/self/fd")) == before, "what was made is closed again"
        assert box.run("print(1)").stdout == "1\n"
