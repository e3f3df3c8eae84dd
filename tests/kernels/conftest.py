"""How these tests reach Triton: interpreted on a machine without a GPU, compiled on one that has it.

The choice is Triton's, made when kernels/triton_rows.py is first imported, so it is set here, before any test module.
Tests that need the other choice (the ahead-of-time compiler) run in a process of their own.
"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(params=["torch", "triton", pytest.param("cuda", marks=pytest.mark.gpu)])
def where(request):
    """(backend, device): PyTorch on the CPU, interpreted Triton on the CPU, compiled Triton on a GPU."""
    if request.param == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton runs compiled here; set TRITON_INTERPRET=1 for the interpreter")
    return {"torch": ("torch", "cpu"), "triton": ("triton", "cpu"), "cuda": ("triton", "cuda")}[request.param]
