"""Runs train.py many times for the price of one import: a clean process that forks a child per run, and can hurt it.

Run as a script it imports train.py once (no tensor is touched before a fork) and reads one JSON request a line; each
child calls `train.main` as the command line would. A request may name a point of the program at which the child is
killed, stopped or finds the disk full, which makes "any moment" a list of moments. A run that is not over
after LIMIT_S shows the stacks of all its threads and is ended. `Server` is the other end.
"""

import dataclasses
import errno
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 240.0


@dataclass(frozen=True)
class Hurt:
    """What befalls the `call`-th call of `at` ("module:Class.method"), on which side of it, and on which rank (None: all).

    do: hang (sleeps 12 s), stuck (asks every rank to stop and sleeps a minute), kill (SIGKILL), term, usr1 (that signal to itself), full (OSError, no space left), half (of RunFolder.log: SIGKILL when
    half the line is written), nan (of policy_loss: the loss it returns).
    """

    do: str
    at: str
    call: int = 1
    when: str = "before"
    rank: int | None = None


@dataclass(frozen=True)
class Ended:
    """Exit code (negative: the signal that killed it) and everything printed."""

    code: int
    text: str

    @property
    def message(self) -> str:
        """The one sentence of a refused or failed run."""
        assert "Traceback" not in self.text, self.text
        lines = [line for line in self.text.splitlines() if line.startswith("train.py: ")]
        assert len(lines) == 1, self.text
        return lines[0]


class Server:
    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        env = os.environ | {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__], env=env, cwd=folder, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def start(
        self,
        *argv: str,
        hurt: Hurt | None = None,
        kill_after: float | None = None,
        ranks: int = 1,
        picture: bool = False,
        script: str = "train",
    ) -> list[Ended]:
        """Run to the end on `ranks` processes; one `Ended` a rank. Without `picture` nothing is plotted: half the time.

        script: the module whose `main(argv)` runs, train.py or one of this folder."""
        self.count += 1
        outputs = [str(self.folder / f"out-{self.count}-{rank}.txt") for rank in range(ranks)]
        request = {
            "argv": argv,
            "hurt": hurt.__dict__ if hurt else None,
            "kill_after": kill_after,
            "outputs": outputs,
            "picture": picture,
            "script": script,
        }
        print(json.dumps(request), file=self.process.stdin, flush=True)
        codes = json.loads(self.process.stdout.readline())
        return [Ended(code, Path(path).read_text(errors="replace")) for code, path in zip(codes, outputs, strict=True)]

    def run(self, *argv: str, **how) -> Ended:
        return self.start(*argv, **how)[0]

    def done(self, *argv: str, **how) -> str:
        """Run to a good end on every rank; rank 0's text."""
        ended = self.start(*argv, **how)
        assert all(e.code == 0 for e in ended), ended
        return ended[0].text

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)


def apply(hurt: Hurt) -> None:
    module, _, path = hurt.at.partition(":")
    holder = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        holder = getattr(holder, part)
    original, calls = getattr(holder, name), []

    def strike() -> None:
        if hurt.do == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if hurt.do == "hang":
            return time.sleep(12)
        if hurt.do == "stuck":
            for pid in map(int, Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read_text().split()):
                os.kill(pid, signal.SIGTERM)
            return time.sleep(60)
        os.kill(os.getpid(), {"term": signal.SIGTERM, "usr1": signal.SIGUSR1}.get(hurt.do, signal.SIGKILL))

    def wrapped(*args, **kwargs):
        calls.append(args)
        mine = len(calls) == hurt.call
        if mine and hurt.do == "half":
            run, log, record = args
            line = json.dumps(record, ensure_ascii=False).encode()
            with open(run.path / log, "ab") as f:
                f.write(line[: len(line) // 2])
                f.flush()
        if mine and hurt.do != "nan" and hurt.when == "before":
            strike()
        result = original(*args, **kwargs)
        if mine and hurt.do == "nan":
            result = dataclasses.replace(result, loss=result.loss * float("nan"))
        if mine and hurt.when == "after":
            strike()
        return result

    setattr(holder, name, wrapped)


def child(request: dict, rank: int) -> int:
    out = os.open(request["outputs"][rank], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for fd in (1, 2):
        os.dup2(out, fd)
    faulthandler.enable(file=2)  # SIGABRT: the stacks of all threads
    if not request["picture"]:
        for module in ("tracelift.rl.report", "tracelift.reward_model.train"):
            importlib.import_module(module).draw_curves = lambda folder: None
    if request["hurt"] and request["hurt"]["rank"] in (None, rank):
        apply(Hurt(**request["hurt"]))
    sys.argv = ["train.py", *request["argv"]]
    try:
        return importlib.import_module(request["script"]).main(list(request["argv"]))
    except SystemExit as e:
        return int(e.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 70
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def serve() -> None:
    # Once, before any fork: what every run imports, also what comes late (AdamW's own, and FSDP's).
    import torch._dynamo
    import torch.distributed.checkpoint.hf_storage
    import torch.distributed.fsdp  # noqa: F401

    import train  # noqa: F401
    from support.ports import quiet_port

    for line in sys.stdin:
        request = json.loads(line)
        size = len(request["outputs"])
        port = str(quiet_port())
        pids = []
        for rank in range(size):
            pid = os.fork()
            if pid == 0:
                if size > 1:
                    os.environ |= {
                        "RANK": str(rank),
                        "WORLD_SIZE": str(size),
                        "LOCAL_RANK": str(rank),
                        "LOCAL_WORLD_SIZE": str(size),
                        "MASTER_ADDR": "127.0.0.1",
                        "MASTER_PORT": port,
                    }
                os._exit(child(request, rank))
            pids.append(pid)
        if request["kill_after"] is not None:
            time.sleep(request["kill_after"])
            for pid in pids:  # not waited for yet, so the id is still this child's
                os.kill(pid, signal.SIGKILL)
        print(json.dumps(exit_codes(pids)), flush=True)


def exit_codes(pids: list[int]) -> list[int]:
    """Wait for all of them; past LIMIT_S those that are left dump their stacks into their output and end."""
    codes: dict[int, int] = {}
    deadline, blow = time.monotonic() + LIMIT_S, signal.SIGABRT
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes and (status := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(status[1])
        if time.monotonic() > deadline:
            for pid in pids:
                if pid not in codes:
                    os.kill(pid, blow)
            deadline, blow = time.monotonic() + 10, signal.SIGKILL
        time.sleep(0.005)
    return [codes[pid] for pid in pids]


if __name__ == "__main__":
    serve()
