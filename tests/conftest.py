"""What holds for every test: a limit, how Triton is reached, a tiny job and a process that runs train.py on it.

Triton is interpreted on a machine without a GPU and compiled on one that has it. The choice is Triton's, made when
kernels/triton_rows.py is first imported, so it is set here, before any test module. Tests that need the other choice
(the ahead-of-time compiler) run in a process of their own.
"""

import os
import shutil
import signal

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items):
    """The usual limit is in pyproject.toml; a test marked slow may take an hour."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """A folder with tokenizer, planner, executor, reward model and data (tiny_job.py). Read it, never write to it."""
    from support.tiny_job import make_job

    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    torch.set_num_threads(1)
    try:
        return make_job(tmp_path_factory.mktemp("job"))
    finally:
        torch.set_num_threads(threads)
        for number, handler in handlers.items():  # training notes these signals; pytest should die of them
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Runs train.py in forked children (job_server.py)."""
    from support.job_server import Server

    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def out(tmp_path):
    """A run folder's path, emptied afterwards: these runs write checkpoints."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)


@pytest.fixture(scope="module")
def box():
    """A sandbox of two workers, all layers on; skips where this machine gives none."""
    from tracelift.sandbox import Sandbox, SandboxError

    try:
        sandbox = Sandbox(workers=2)
    except SandboxError as error:
        pytest.skip(str(error))
    with sandbox:
        yield sandbox
