"""The ahead-of-time gate: the row kernels compile for six instruction sets, spill nothing, wait for nothing inside their
loop, and take what was recorded; and the page on kernels shows that record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.kernels_assembly import gcn_loops, main_loop, sass_loops

ROOT = Path(__file__).parents[2]
SCRIPT, RECORD = ROOT / "benchmarks/kernel_resources.py", ROOT / "benchmarks/results/kernel_resources.json"
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942", "gfx950")
CAPPED = ("sm_90", "gfx950")


@pytest.mark.parametrize("dtypes", [["bf16"], pytest.param(["fp16", "fp32"], marks=pytest.mark.slow)])
def test_kernels_compile_for_every_target_as_recorded(dtypes):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "--check", "--dtypes", *dtypes]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (
        f"{4 * (len(TARGETS) + len(CAPPED)) * len(dtypes)} kernels as recorded: none spills, none waits"
        in result.stdout
    )


def test_the_record_is_complete_and_the_gate_can_fail():
    pytest.importorskip("triton")
    record = json.loads(RECORD.read_text())
    want = {
        f"{k} {d}{r}{c} {t}"
        for k in ("forward", "backward")
        for d in ("bf16", "fp16", "fp32")
        for r in ("", " with reference")
        for c, targets in (("", TARGETS), (" capped", CAPPED))
        for t in targets
    }
    assert set(record["kernels"]) == want
    assert all(v["stack"] == v["local"] == v["barriers"] == v["shuffles"] == 0 for v in record["kernels"].values())
    code = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
from benchmarks import kernel_resources as gate
record = json.loads(gate.RECORD.read_text())
key = "forward bf16 sm_90"
good = record["kernels"][key]
assert not gate.compare({{key: good}}, record)
record["triton"] = gate.triton.__version__
for change in (
    {{"stack": 8}}, {{"local": 4}}, {{"registers": good["registers"] + 9}}, {{"barriers": 1}}, {{"shuffles": 5}},
    {{"threads in use": 0.5}}, {{"instructions an element": 1.2 * good["instructions an element"]}}, {{"load bytes": 2}},
):
    assert gate.compare({{key: {{**good, **change}}}}, record), change
assert gate.compare({{"forward unknown": good}}, record)
capped = "forward bf16 with reference capped sm_90"
for share, wrong in ((0.5, 0), (0.3, 1)):  # a floor of its own
    assert len(gate.compare({{capped: {{**record["kernels"][capped], "threads in use": share}}}}, record)) == wrong
assert gate.render(json.loads(gate.RECORD.read_text())) in gate.DOCS.read_text()
slow = gate.expected({{key: {{**good, "instructions an element": 40.0}}}}, "forward", "bf16", False)
fast = gate.expected({{key: {{**good, "instructions an element": 4.0}}}}, "forward", "bf16", False)
assert slow["expected"] > 1.5 and abs(fast["expected"] - fast["memory floor"] / gate.OF_MEMORY) < 1e-9
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


SASS = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;                     /* 0x00000a0000017a02 */
        /*0010*/                   LDG.E.U16 R2, desc[UR4][R4.64] ;           /* 0x0 */
        /*0020*/              @!P0 LDG.E.128 R4, desc[UR14][R8.64] ;          /* 0x0 */
        /*0030*/                   MUFU.EX2 R19, R23 ;                        /* 0x0 */
        /*0040*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;              /* 0x0 */
        /*0050*/                   SHFL.BFLY PT, R3, R2, 0x10, 0x1f ;         /* 0x0 */
        /*0060*/               @P1 BRA 0x20 ;                                 /* 0x0 */
        /*0070*/               @P2 BRA 0x90 ;                                 /* 0x0 */
        /*0080*/               @P0 BRA 0x20 ;                                 /* 0x0 */
        /*0090*/                   EXIT ;                                     /* 0x0 */
"""
GCN = """
	v_mov_b32 v0, 0
.LBB0_1:                                ; =>This Loop Header: Depth=1
	buffer_load_dwordx4 v[2:5], v2, s[24:27], 0 offen
	v_exp_f32_e32 v1, v2 ; a comment
	s_barrier
	s_cbranch_scc1 .LBB0_1
.LBB0_2:
	global_load_ushort v2, v[14:15], off
	s_cbranch_execz .LBB0_3
.LBB0_3:
	s_endpgm
"""


def test_loops_are_read_off_machine_code():
    (loop,) = sass_loops(SASS)
    assert (loop.instructions, loop.loads, loop.barriers, loop.shuffles, loop.exponentials) == (7, [16], 1, 1, 1)
    assert main_loop([loop]) is loop
    (loop,) = gcn_loops(GCN)
    assert (loop.instructions, loop.loads, loop.barriers, loop.exponentials) == (4, [16], 1, 1)
    with pytest.raises(ValueError, match="none of 0 loops"):
        main_loop([])


def test_fusion_of_multiply_and_add_is_said_out_loud():
    """Its default differs between Triton releases; every launch must name it."""
    from kernels import triton_rows

    assert triton_rows.launch_options(1000, 2, False)["enable_fp_fusion"] is triton_rows.FP_FUSION is True
    assert json.loads(RECORD.read_text())["fp_fusion"] is True
