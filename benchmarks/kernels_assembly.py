"""What a loop of machine code does: instructions, bytes loaded, barriers, shuffles and exponentials an iteration.

Reads NVIDIA's SASS as cuobjdump prints it, and AMD's assembly as LLVM does. A loop is what lies between a branch and an
earlier address that it goes to. Left out: how long an instruction takes, and loops whose code is not in one piece.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SASS_LOAD = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}  # LDG.E is 4
GCN_LOAD = {"ubyte": 1, "ushort": 2, "short": 2, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}


@dataclass
class Loop:
    """One iteration of a loop, a thread."""

    instructions: int
    loads: list[int]  # bytes of each load from global memory
    barriers: int
    shuffles: int  # exchanges between the threads of a warp
    exponentials: int


def sass_loops(text: str) -> list[Loop]:
    """Loops of SASS in the order of their first branch back; `cuobjdump -sass` prints `/*0790*/ FADD R1, R2, R3 ;` a line.

    Where several branches go back to one address, the last one ends the loop."""
    code = [(int(m[1], 16), m[2]) for m in re.finditer(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.+?)\s*;", text, re.M)]
    loops: dict[int, Loop] = {}
    for address, instruction in code:
        jump = re.search(r"\bBRA\b.*?\b0x([0-9a-f]+)", instruction)
        if jump and int(jump[1], 16) <= address:
            body = [re.sub(r"^@!?U?P\w+\s+", "", i) for a, i in code if int(jump[1], 16) <= a <= address]
            names = [i.split()[0].split(".") for i in body]
            loads = [next((SASS_LOAD[p] for p in n[1:] if p in SASS_LOAD), 4) for n in names if n[0] == "LDG"]
            loops[int(jump[1], 16)] = Loop(
                len(names),
                loads,
                barriers=sum(n[0] == "BAR" for n in names),
                shuffles=sum(n[0] == "SHFL" for n in names),
                exponentials=sum(n[:2] == ["MUFU", "EX2"] for n in names),
            )
    return [*loops.values()]


def gcn_loops(text: str) -> list[Loop]:
    """The same of AMD's assembly, where a loop begins at a label such as `.LBB0_3:`."""
    labels: dict[str, int] = {}
    names: list[str] = []
    loops: dict[str, Loop] = {}
    for line in text.splitlines():
        line = line.split(";")[0].strip()
        if line.endswith(":"):
            labels[line[:-1]] = len(names)
        elif line and not line.startswith((".", "//")):
            name, *rest = line.split()
            names.append(name)
            if "branch" in name and rest and rest[-1] in labels:
                loops[rest[-1]] = _gcn_loop(names[labels[rest[-1]] :])
    return [*loops.values()]


def _gcn_loop(names: list[str]) -> Loop:
    loads = [re.match(r"(?:global|buffer|flat)_load_(?:\w+_)?(ubyte|ushort|short|dword(?:x\d)?)", n) for n in names]
    return Loop(
        len(names),
        [GCN_LOAD[m[1]] for m in loads if m],
        barriers=names.count("s_barrier"),
        shuffles=sum(n.startswith(("ds_bpermute", "ds_permute", "ds_swizzle")) for n in names),
        exponentials=sum(n.startswith("v_exp_f32") for n in names),
    )


def main_loop(loops: list[Loop]) -> Loop:
    """The first that takes exponentials of what it loads: the one over the pieces of a row."""
    found = next((loop for loop in loops if loop.loads and loop.exponentials), None)
    if found is None:
        raise ValueError(f"none of {len(loops)} loops loads and takes exponentials")
    return found
