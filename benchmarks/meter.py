"""Time and peak memory of one call, what the machine can do at best, and what it is: shared by benchmarks.

Left out: which calls are worth measuring.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from kernels import cpu_linear


class Meter:
    """Time and peak memory of one call on a device."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def __call__(self, call: Callable[[], None]) -> tuple[float, float]:  # -> seconds, wall seconds
        if self.cuda:
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            return start.elapsed_time(stop) / 1e3, start.elapsed_time(stop) / 1e3
        cpu, wall = time.process_time(), time.perf_counter()
        call()
        return time.process_time() - cpu, time.perf_counter() - wall

    def peak(self, call: Callable[[], None]) -> int:  # bytes above what was held before
        gc.collect()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            return torch.cuda.max_memory_allocated() - before
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from here
        before = status("VmRSS")
        call()
        return status("VmHWM") - before


def status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: peak memory on a CPU needs Linux")


def ceilings(device: str, dtypes: set[torch.dtype]) -> dict[str, float]:
    """Bytes/s of a copy (read + write), FLOP/s of a square product."""
    meter, out = Meter(device), {}
    big = torch.ones((1 << 30 if device == "cuda" else 1 << 26) // 4, device=device)
    other = torch.empty_like(big)
    out["bytes"] = 2 * big.nbytes / min(meter(lambda: other.copy_(big))[0] for _ in range(10))
    n = 8192 if device == "cuda" else 1024
    for dtype in dtypes:
        a = torch.randn(n, n, device=device).to(dtype)
        products = [
            partial(torch.matmul, a, a),
            partial(cpu_linear.linear, a, a),
        ]  # on a CPU two libraries: the better counts
        out[f"FLOP {dtype}"] = 2 * n**3 / min(meter(p)[0] for p in products for _ in range(10))
    return out


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return f"{platform.machine()} CPU ({names[0]})" if names else f"{platform.machine()} CPU"


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of packages; "absent" where one is not installed."""
    out = {"python": platform.python_version()}
    for package in packages:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "absent"
    return out
