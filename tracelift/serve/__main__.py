"""`python -m tracelift.serve`: load an executor, a Reason RM or both, and answer until told to stop.

SIGTERM and SIGINT: nothing new is taken, what was asked is answered, exit status 0; a second signal ends at once with 130.
Exit status 1: a model or the address cannot be had; 2: a wrong command line.
"""

from __future__ import annotations

import argparse
import functools
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import models
from tracelift.distributed.world import pick_device
from tracelift.errors import printable
from tracelift.executor.local import LocalBackend
from tracelift.reward_model.scorer import LocalScorer
from tracelift.sampler import Sampler
from tracelift.serve.batching import Batcher
from tracelift.serve.completions import Completions
from tracelift.serve.score import Scores
from tracelift.serve.web import Endpoint, HttpService, RequestLimits

MiB = 2**20


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    a = parser.parse_args(argv)
    key = os.environ.get(a.key_env) or None
    if not (a.executor or a.reward_model):
        parser.error("nothing to serve: give --executor, --reward-model or both")
    if not _loopback(a.host) and key is None and not a.open:
        parser.error(f"--host {a.host} lets other machines in: set a key in ${a.key_env}, or say --open")
    if a.threads:
        torch.set_num_threads(a.threads)
    try:
        service, batchers = build(a, key)
    except (OSError, ValueError, models.CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return _serve(service, batchers, a.grace)


def build(a: argparse.Namespace, key: str | None) -> tuple[HttpService, list[Batcher]]:
    """The server, bound but not yet serving, and its workers. Raises OSError, ValueError or models.CheckpointError."""
    device, dtype = pick_device(a.device), getattr(torch, a.dtype)
    posts: dict[str, Endpoint] = {}
    served: list[tuple[str, str, str]] = []  # name, fingerprint of the weights, endpoint
    if a.executor:
        model = models.load_pretrained(a.executor, dtype=dtype, device=device).requires_grad_(False)
        tokenizer = models.load_tokenizer(a.executor)
        sampler = Sampler(model, tokenizer.eos_ids, tokenizer.pad_id, tokenizer.decode, a.memory_mb * MiB)
        completions = Completions(
            sampler, tokenizer, a.name or os.path.basename(os.path.normpath(a.executor)), a.max_completions
        )
        worker = Batcher("completions", completions.run, a.batch, a.queue, _say)
        posts["/v1/completions"] = Endpoint(
            lambda body: [(w := completions.read(body), w.units)],
            worker,
            lambda wanted, answers: completions.reply(wanted[0], answers[0]),
        )
        served.append((completions.name, LocalBackend(model, tokenizer, sampler).fingerprint, "/v1/completions"))
    if a.reward_model:
        rm = models.load_reward_model(a.reward_model, dtype=dtype, device=device).requires_grad_(False)
        scorer = LocalScorer(rm, models.load_tokenizer(a.reward_model), a.max_tokens)
        scores = Scores(scorer, os.path.basename(os.path.normpath(a.reward_model)), a.max_items)
        worker = Batcher("traces", scores.run, a.batch, a.queue, _say)
        posts["/score"] = Endpoint(
            lambda body: [(part, len(part.items)) for part in scores.read(body)],
            worker,
            lambda _, found: scores.reply([score for part in found for score in part]),
        )
        served.append((scores.name, scores.fingerprint, "/score"))
    started = int(time.time())
    about = {"object": "model", "created": started, "owned_by": "tracelift"}
    listed = [{"id": name, **about, "fingerprint": print_, "endpoint": path} for name, print_, path in served]
    gets: dict[str, Callable[[], dict[str, Any]]] = {
        "/health": lambda: {"status": "ok", "queued": {path: e.batcher.depth for path, e in posts.items()}},
        "/v1/models": lambda: {"object": "list", "data": listed},
        **{f"/v1/models/{entry['id']}": functools.partial(dict, entry) for entry in listed},
    }
    limits = RequestLimits(int(a.max_body_mb * MiB), a.connections, a.read_timeout, a.timeout)
    return HttpService((a.host, a.port), posts, gets, limits, key, _say), [e.batcher for e in posts.values()]


def _serve(service: HttpService, batchers: Sequence[Batcher], grace: float) -> int:
    stop = threading.Event()

    def note(number: int, frame: Any) -> None:
        if stop.is_set():
            os._exit(130)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    host, port = service.server_address[:2]
    shown = f"[{host}]" if ":" in str(host) else host
    _say(f"serving {', '.join(service.posts)} on http://{shown}:{port}{'' if service.key else ' without a key'}")
    while not stop.wait(0.5):
        pass
    _say("stopping: nothing new is taken, what was asked is answered")
    deadline = time.monotonic() + grace
    finished = [b.close(max(0.0, deadline - time.monotonic())) for b in batchers]
    service.shutdown()
    service.drain(max(0.5, min(5.0, deadline - time.monotonic())))
    service.server_close()
    _say("stopped" if all(finished) else f"stopped; some requests were not answered within {grace:g} s")
    return 0


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _say(line: str) -> None:
    """One line of the log, in which nothing that a client sent can move a terminal or begin another line."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {printable(line)}\n")  # in one piece: threads write at once
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m tracelift.serve", description="Serve an executor (/v1/completions) and a Reason RM (/score)."
    )
    p.add_argument("--executor", metavar="FOLDER", help="Hugging Face folder of a language model")
    p.add_argument("--reward-model", metavar="FOLDER", help="folder of a Reason RM")
    p.add_argument("--name", help="the executor's name in the protocol (default: its folder's)")
    p.add_argument("--host", default="127.0.0.1", help="address to bind (default: loopback only)")
    p.add_argument(
        "--port",
        type=_number(int, 0, 65535),
        default=8000,
        help="port; 0 takes a free one and prints it (default: 8000)",
    )
    p.add_argument(
        "--key-env",
        default="TRACELIFT_API_KEY",
        metavar="NAME",
        help="environment variable with the API key; unset: no key",
    )
    p.add_argument("--open", action="store_true", help="serve other machines without a key")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="weights and activations")
    p.add_argument("--threads", type=_number(int, 0), default=0, help="CPU threads; 0 leaves it to PyTorch")
    p.add_argument(
        "--memory-mb", type=_number(int, 1), default=2048, help="keys and values of the sampler, in MiB (default: 2048)"
    )
    p.add_argument(
        "--max-tokens",
        type=_number(int, 1),
        default=2048,
        help="longest input of the Reason RM, in tokens (default: 2048)",
    )
    p.add_argument(
        "--batch", type=_number(int, 1), default=256, help="completions or traces run together at most (default: 256)"
    )
    p.add_argument(
        "--queue",
        type=_number(int, 1),
        default=1024,
        help="completions or traces that may wait; past it 429 (default: 1024)",
    )
    p.add_argument(
        "--max-completions", type=_number(int, 1), default=256, help="completions of one request (default: 256)"
    )
    p.add_argument(
        "--max-items", type=_number(int, 1), default=1024, help="items of one /score request (default: 1024)"
    )
    p.add_argument(
        "--max-body-mb", type=_number(float, 0.001), default=8.0, help="largest request, in MiB (default: 8)"
    )
    p.add_argument(
        "--connections", type=_number(int, 1), default=64, help="connections at once; past it 503 (default: 64)"
    )
    p.add_argument(
        "--read-timeout",
        type=_number(float, 0.1),
        default=20.0,
        help="seconds a request may take to arrive (default: 20)",
    )
    p.add_argument(
        "--timeout",
        type=_number(float, 0.1),
        default=600.0,
        help="seconds a client waits for its result (default: 600)",
    )
    p.add_argument(
        "--grace",
        type=_number(float, 0.0),
        default=30.0,
        help="seconds for requests under way when told to stop (default: 30)",
    )
    return p


def _number(kind: type, low: float, high: float = float("inf")) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        value = kind(word)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{word} is not from {low:g} to {high:g}")
        return value

    read.__name__ = kind.__name__
    return read


if __name__ == "__main__":
    sys.exit(main())
