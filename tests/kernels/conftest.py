"""The backends that the kernels' tests run on."""

import os

import pytest

from support.interpreter import patch_once_a_launch

if os.environ.get("TRITON_INTERPRET") == "1":
    patch_once_a_launch()


@pytest.fixture(params=["torch", "triton", pytest.param("cuda", marks=pytest.mark.gpu)])
def where(request):
    """(backend, device): PyTorch on the CPU, interpreted Triton on the CPU, compiled Triton on a GPU."""
    if request.param == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton runs compiled here; set TRITON_INTERPRET=1 for the interpreter")
    return {"torch": ("torch", "cpu"), "triton": ("triton", "cpu"), "cuda": ("triton", "cuda")}[request.param]
