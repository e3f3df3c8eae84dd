"""Compile every row kernel ahead of time for sm_80, sm_90 and sm_100 and record what each takes of the machine.

    python benchmarks/kernel_resources.py            # prints, and rewrites benchmarks/results/kernel_resources.json
    python benchmarks/kernel_resources.py --check    # compiles again and compares with that file; no file is written

No GPU is needed: Triton lowers to PTX, its own ptxas to a cubin, and cuobjdump reads registers, stack, local memory
(spills) and shared memory off the cubin. `--check` fails on any spill, and where registers or shared memory left the
recorded values by more than the tolerance: 8 registers with the recorded Triton, 25% with another.

Left out: the products of kernels/linear.py, which are the vendor's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ["TRITON_INTERPRET"] = "0"  # before Triton is imported: the interpreter has nothing to compile
sys.path.insert(0, str(Path(__file__).parents[1]))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels import triton_rows

RECORD = Path(__file__).parent / "results" / "kernel_resources.json"
TARGETS = (80, 90, 100)
VOCAB = 151_936
TENSORS = {
    "grad": None,
    "logits": None,
    "ref_logits": None,
    "targets": "*i64",
    "out": "*fp32",
    "row_stats": "*fp32",
    "weights": "*fp32",
}
SCALARS = {"vocab": "i32", "columns": "i32", "inv_t": "fp32"}  # everything else is annotated i64


def compile_one(kernel, dtype: str, has_ref: bool, target: int) -> dict[str, int]:
    """Registers a thread, bytes of stack and local memory a thread, bytes of shared memory a program."""
    options = triton_rows.launch_options(VOCAB, has_ref)
    constants = {"BLOCK": options.pop("BLOCK"), "HAS_REF": has_ref, "ALIGNED": True}
    signature = {}
    for name in kernel.arg_names:
        tensor = (TENSORS[name] or f"*{dtype}") if name in TENSORS else None
        signature[name] = "constexpr" if name in constants else tensor or SCALARS.get(name, "i64")
    wide = {"grad", "logits", "ref_logits", "vocab", "columns"}  # 16-byte pointers, a vocabulary divisible by 16
    attributes = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if name in wide}
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=attributes),
        target=GPUTarget("cuda", target, 32),
        options=options,
    )
    return {
        **read_cubin(compiled.asm["cubin"]),
        "shared": compiled.metadata.shared,
        "warps": options["num_warps"],
        "block": constants["BLOCK"],
    }


def read_cubin(cubin: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {text!r}")
    return dict(zip(("registers", "stack", "local"), map(int, found.groups()), strict=True))


def measure(dtypes: tuple[str, ...]) -> dict[str, dict[str, int]]:
    table = {}
    for name, kernel in (("forward", triton_rows.forward_kernel), ("backward", triton_rows.backward_kernel)):
        for dtype in dtypes:
            for has_ref in (False, True):
                for target in TARGETS:
                    key = f"{name} {dtype}{' with reference' if has_ref else ''} sm_{target}"
                    table[key] = compile_one(kernel, dtype, has_ref, target)
                    print(f"{key:40}", *(f"{k} {v:<5}" for k, v in table[key].items()))
    return table


def compare(table: dict[str, dict[str, int]], record: dict) -> list[str]:
    """What is wrong, one line each; empty where the gate passes."""
    same = record["triton"] == triton.__version__
    faults = []
    for key, now in table.items():
        if now["stack"] or now["local"]:
            faults.append(f"{key}: spills ({now['stack']} bytes of stack, {now['local']} of local memory a thread)")
        was = record["kernels"].get(key)
        if was is None:
            faults.append(f"{key}: not recorded; run python benchmarks/kernel_resources.py")
            continue
        slack = 8 if same else max(8, was["registers"] // 4)
        if abs(now["registers"] - was["registers"]) > slack:
            faults.append(f"{key}: {now['registers']} registers, recorded {was['registers']} ± {slack}")
        if now["shared"] > max(2 * was["shared"], 1024):
            faults.append(f"{key}: {now['shared']} bytes of shared memory, recorded {was['shared']}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the recorded values; exit 1 on a difference")
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp16", "fp32"], choices=["bf16", "fp16", "fp32"])
    args = parser.parse_args()
    table = measure(tuple(args.dtypes))
    if args.check:
        faults = compare(table, json.loads(RECORD.read_text()))
        print("\n".join(faults) or f"{len(table)} kernels as recorded, none spills")
        return bool(faults)
    record = {"triton": triton.__version__, "fp_fusion": triton_rows.FP_FUSION, "vocab": VOCAB, "kernels": table}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {RECORD}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
