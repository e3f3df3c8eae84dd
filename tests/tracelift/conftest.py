"""What the end-to-end tests of this room share: a tiny job made once, and a process that runs train.py on it."""

import shutil
import signal

import pytest
import torch


@pytest.fixture(scope="session")
def job(tmp_path_factory):
    """A folder with tokenizer, planner, executor, reward model and data (tiny_job.py). Read it, never write to it."""
    from tiny_job import make_job

    threads = torch.get_num_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
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
    from job_server import Server

    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture
def out(tmp_path):
    """A run folder's path, emptied afterwards: these runs write checkpoints."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
