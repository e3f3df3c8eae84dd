"""Compile every row kernel ahead of time for six GPUs' instruction sets and record what each takes of the machine.

    python benchmarks/kernel_resources.py            # prints, and rewrites benchmarks/results/kernel_resources.json
                                                     # and the tables of docs/kernels.md
    python benchmarks/kernel_resources.py --check    # compiles again and compares with that file; no file is written

No GPU is needed: Triton lowers to PTX, its own ptxas to a cubin, and cuobjdump reads registers, stack, local memory
(spills) and instructions off the cubin; for AMD, LLVM's assembly says the same. Of the loop over a row it counts
instructions an element, barriers, shuffles and the widest load; from registers follow the programs that share a
multiprocessor. Each kernel is compiled plain and with a reference, and for one GPU of either maker both with a soft cap and a
temperature a row ("capped").
`--check` fails

- on any spill, and on a barrier or a shuffle in the loop over a row,
- where fewer of a multiprocessor's threads are in use than `FLOOR` says,
- where registers left the recorded values by more than 8 with the recorded Triton, by a quarter with another; where
  instructions an element did by more than a tenth or a quarter.

The times that follow for one GPU, the H200, are arithmetic on these counts (`expected`), not measurements.

Left out: the products of kernels/linear.py, which are the vendor's, and rows whose tensors are out of phase.
"""

from __future__ import annotations

import argparse
import itertools
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

from benchmarks.kernels_assembly import gcn_loops, main_loop, sass_loops
from benchmarks.kernels_report import DOCS, RESULTS
from kernels import triton_rows

RECORD = RESULTS / "kernel_resources.json"
VOCAB = 151_936
# (registers, threads, most programs) of one multiprocessor; AMD's: vector registers of one lane of a SIMD, its waves.
NVIDIA = {80: (65_536, 2048, 32), 90: (65_536, 2048, 32), 100: (65_536, 2048, 32), 120: (65_536, 1536, 24)}
AMD = {"gfx942": (512, 8), "gfx950": (512, 8)}
CAPPED_ON = (90, "gfx950")
FLOOR, FLOOR_CAPPED = (
    0.6,
    0.4,
)  # share of a multiprocessor's threads that must be in use; capped, arithmetic is the limit
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
TENSORS = {
    "grad": None,
    "logits": None,
    "ref_logits": None,
    "targets": "*i64",
    "out": "*fp32",
    "row_stats": "*fp32",
    "weights": "*fp32",
}
SCALARS = {"vocab": "i32", "columns": "i32", "inv_t": "fp32", "cap": "fp32"}  # everything else is annotated i64


def compile_one(kernel, dtype: str, has_ref: bool, capped: bool, target: int | str) -> dict[str, float]:
    """What one variant takes; counts are of one thread, `shared` and `warps` of one program."""
    warp_size = 64 if target in AMD else 32
    options = triton_rows.launch_options(VOCAB, BYTES[dtype], has_ref, warp_size, capped)
    constants = {k: options.pop(k) for k in ("LANES", "DEPTH", "WHOLE")}
    constants |= {"HAS_REF": has_ref, "ALIGNED": True, "CAPPED": capped, "ROW_T": capped}
    scalars, signature = SCALARS | ({"inv_t": "*fp32"} if capped else {}), {}
    for name in kernel.arg_names:
        tensor = (TENSORS[name] or f"*{dtype}") if name in TENSORS else None
        signature[name] = "constexpr" if name in constants else tensor or scalars.get(name, "i64")
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs={}),  # no alignment is known beforehand
        target=GPUTarget("hip" if target in AMD else "cuda", target, warp_size),
        options=options,
    )
    warps = options["num_warps"]
    if target in AMD:
        assembly = compiled.asm["amdgcn"]
        taken, loop = read_gcn(assembly), main_loop(gcn_loops(assembly))
        registers, waves = AMD[target]
        programs = 4 * min(waves, registers // (-(-taken["registers"] // 8) * 8)) // warps  # four SIMDs
        share = programs * warps / (4 * waves)
    else:
        taken, assembly = read_cubin(compiled.asm["cubin"])
        loop = main_loop(sass_loops(assembly))
        registers, threads, most = NVIDIA[target]
        a_warp = -(-taken["registers"] * 32 // 256) * 256  # registers are handed out 256 to a warp
        programs = min(most, threads // (32 * warps), registers // a_warp // warps)
        share = programs * 32 * warps / threads
    elements = sum(loop.loads) // (BYTES[dtype] * (2 if has_ref else 1))
    return {
        **taken,
        "shared": compiled.metadata.shared,
        "warps": warps,
        "lanes": constants["LANES"],
        "programs": programs,
        "threads in use": round(share, 3),
        "load bytes": max(loop.loads),
        "elements": elements,
        "instructions an element": round(loop.instructions / elements, 2),
        "barriers": loop.barriers,
        "shuffles": loop.shuffles,
    }


def read_cubin(cubin: bytes) -> tuple[dict[str, int], str]:
    """Registers, stack and local memory of a thread, and the SASS."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, code = (
            subprocess.run(
                [triton.knobs.nvidia.cuobjdump.path, what, file.name], capture_output=True, text=True, check=True
            ).stdout
            for what in ("-res-usage", "-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {usage!r}")
    return dict(zip(("registers", "stack", "local"), map(int, found.groups()), strict=True)), code


def read_gcn(assembly: str) -> dict[str, int]:
    """The same of AMD's assembly, whose metadata names them; spilled registers count 4 bytes of local memory each."""

    def of(key: str) -> int:
        found = re.search(rf"\.{key}:\s+(\d+)", assembly)
        if found is None:
            raise RuntimeError(f"the assembly says no {key}")
        return int(found[1])

    return {
        "registers": of("vgpr_count"),
        "stack": of("private_segment_fixed_size"),
        "local": 4 * of("vgpr_spill_count"),
    }


def measure(dtypes: tuple[str, ...], targets: tuple[int | str, ...] = (*NVIDIA, *AMD)) -> dict[str, dict[str, float]]:
    table = {}
    for name, kernel in (("forward", triton_rows.forward_kernel), ("backward", triton_rows.backward_kernel)):
        for dtype in dtypes:
            for capped, has_ref in itertools.product((False, True), repeat=2):
                for target in targets:
                    if capped and target not in CAPPED_ON:
                        continue
                    key = variant(name, dtype, has_ref, target_name(target), capped)
                    table[key] = compile_one(kernel, dtype, has_ref, capped, target)
                    print(f"{key:40}", *(f"{k} {v:<5}" for k, v in table[key].items()))
    return table


def target_name(target: int | str) -> str:
    return target if isinstance(target, str) else f"sm_{target}"


def compare(table: dict[str, dict[str, float]], record: dict) -> list[str]:
    """What is wrong, one line each; empty where the gate passes."""
    same = record["triton"] == triton.__version__
    faults = []
    for key, now in table.items():
        if now["stack"] or now["local"]:
            faults.append(f"{key}: spills ({now['stack']} bytes of stack, {now['local']} of local memory a thread)")
        if now["barriers"] or now["shuffles"]:
            faults.append(f"{key}: {now['barriers']} barriers and {now['shuffles']} shuffles in the loop over a row")
        floor = FLOOR_CAPPED if " capped" in key else FLOOR
        if now["threads in use"] < floor:
            faults.append(f"{key}: {now['threads in use']:.0%} of a multiprocessor's threads in use, floor {floor:.0%}")
        was = record["kernels"].get(key)
        if was is None:
            faults.append(f"{key}: not recorded; run python benchmarks/kernel_resources.py")
            continue
        slack = 8 if same else max(8, was["registers"] // 4)
        if abs(now["registers"] - was["registers"]) > slack:
            faults.append(f"{key}: {now['registers']} registers, recorded {was['registers']} ± {slack}")
        count = "instructions an element"
        if now[count] > was[count] * (1.1 if same else 1.25):
            faults.append(f"{key}: {now[count]} {count}, recorded {was[count]}")
        if now["load bytes"] < was["load bytes"]:
            faults.append(f"{key}: loads of {now['load bytes']} bytes, recorded {was['load bytes']}")
    return faults


# -- what follows for an H200 ---------------------------------------------------------------------------------------------

MULTIPROCESSORS, CLOCK, SCHEDULERS = 132, 1.755e9, 4  # sustained; the data sheet's boost is 1.98e9
BANDWIDTH, LATENCY = 4.8e12, 650e-9  # bytes/s of the data sheet; seconds from load to use under load
# Shares of either ceiling that a kernel with no barrier in its loop is expected to reach: a copy's, and a busy issue port's.
OF_MEMORY, OF_ISSUE = 0.92, 0.85
ROWS = 8192


def variant(kernel: str, dtype: str, has_ref: bool, target: str, capped: bool = False) -> str:
    return f"{kernel} {dtype}{' with reference' if has_ref else ''}{' capped' if capped else ''} {target}"


def expected(kernels: dict[str, dict[str, float]], kernel: str, dtype: str, has_ref: bool) -> dict[str, float]:
    """Floors and expected time in ms of ROWS rows of VOCAB logits on an H200, from the counts for sm_90."""
    now = kernels[variant(kernel, dtype, has_ref, "sm_90")]
    tensors = (1 if kernel == "forward" else 2) + has_ref
    memory = ROWS * VOCAB * BYTES[dtype] * tensors / BANDWIDTH
    issue = ROWS * VOCAB * now["instructions an element"] / 32 / (MULTIPROCESSORS * SCHEDULERS * CLOCK)
    return {
        "memory floor": 1e3 * memory,
        "issue floor": 1e3 * issue,
        "KB under way": now["programs"] * now["lanes"] * now["elements"] * BYTES[dtype] * (1 + has_ref) / 1024,
        "KB needed": BANDWIDTH * LATENCY / MULTIPROCESSORS / 1024,
        "expected": 1e3 * max(memory / OF_MEMORY, issue / OF_ISSUE),
    }


def render(record: dict) -> str:
    """Markdown: the bf16 kernels as compiled, and what is expected of them on an H200."""
    kernels = record["kernels"]
    shown = ("registers", "programs", "instructions an element", "load bytes", "barriers")
    lines = [
        f"Triton {record['triton']}, bf16, {VOCAB:,} columns; the rest is in benchmarks/results/kernel_resources.json.",
        "",
        "| | registers | programs a multiprocessor | instructions an element | bytes a load | barriers in the loop |",
        "|---" * 6 + "|",
    ]
    for key, row in kernels.items():
        if " bf16 " in key and (" capped" not in key or key.endswith("sm_90")):
            lines.append(f"| {key.replace(' bf16', '')} | " + " | ".join(f"{row[k]:g}" for k in shown) + " |")
    lines += [
        "",
        f"What follows for {ROWS:,} × {VOCAB:,} on an H200, by arithmetic and not measured:",
        "",
        "| | memory floor | issue floor | loads under way a multiprocessor | expected |",
        "|---" * 5 + "|",
    ]
    for kernel in ("forward", "backward"):
        for dtype, has_ref in (("bf16", False), ("bf16", True), ("fp32", False)):
            row = expected(kernels, kernel, dtype, has_ref)
            lines.append(
                f"| {kernel} {dtype}{' with reference' if has_ref else ''} | {row['memory floor']:.2f} ms | "
                f"{row['issue floor']:.2f} ms | {row['KB under way']:.0f} KB of {row['KB needed']:.0f} needed | "
                f"{row['expected']:.2f} ms |"
            )
    return "\n".join([*lines, ""])


def write_page(record: dict) -> None:
    begin, end = "<!-- compiled table -->", "<!-- end of compiled table -->"
    head, rest = DOCS.read_text().split(begin)
    DOCS.write_text(head + begin + "\n" + render(record) + end + rest.split(end)[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the recorded values; exit 1 on a difference")
    parser.add_argument("--dtypes", nargs="+", default=[*BYTES], choices=[*BYTES])
    names = {target_name(t): t for t in (*NVIDIA, *AMD)}
    parser.add_argument("--targets", nargs="+", default=[*names], choices=[*names])
    args = parser.parse_args()
    table = measure(tuple(args.dtypes), tuple(names[t] for t in args.targets))
    if args.check:
        faults = compare(table, json.loads(RECORD.read_text()))
        print("\n".join(faults) or f"{len(table)} kernels as recorded: none spills, none waits inside its loop")
        return bool(faults)
    if (args.dtypes, args.targets) != ([*BYTES], [*names]):
        print("nothing written: a record needs all dtypes and targets")
        return 0
    record = {"triton": triton.__version__, "fp_fusion": triton_rows.FP_FUSION, "vocab": VOCAB, "kernels": table}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    write_page(record)
    print(f"wrote {RECORD}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
