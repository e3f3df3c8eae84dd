"""The ahead-of-time gate: the row kernels compile for three GPU generations, spill nothing, take what was recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT, RECORD = ROOT / "benchmarks/kernel_resources.py", ROOT / "benchmarks/results/kernel_resources.json"


@pytest.mark.parametrize("dtypes", [["bf16"], pytest.param(["fp16", "fp32"], marks=pytest.mark.slow)])
def test_kernels_compile_for_sm_80_90_and_100_as_recorded(dtypes):
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "--check", "--dtypes", *dtypes]
    result = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{12 * len(dtypes)} kernels as recorded, none spills" in result.stdout


def test_the_record_is_complete_and_the_gate_can_fail(monkeypatch):
    pytest.importorskip("triton")
    record = json.loads(RECORD.read_text())
    want = {
        f"{k} {d}{r} sm_{t}"
        for k in ("forward", "backward")
        for d in ("bf16", "fp16", "fp32")
        for r in ("", " with reference")
        for t in (80, 90, 100)
    }
    assert set(record["kernels"]) == want
    assert all(v["stack"] == v["local"] == 0 for v in record["kernels"].values())
    code = f"""
import json, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import kernel_resources as gate
record = json.loads(gate.RECORD.read_text())
key = "forward bf16 sm_90"
good = record["kernels"][key]
assert not gate.compare({{key: good}}, record)
record["triton"] = gate.triton.__version__
for change in ({{"stack": 8}}, {{"local": 4}}, {{"registers": good["registers"] + 9}}, {{"shared": 10 ** 5}}):
    assert gate.compare({{key: {{**good, **change}}}}, record), change
assert gate.compare({{"unknown": good}}, record)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_fusion_of_multiply_and_add_is_said_out_loud(monkeypatch):
    """Its default differs between Triton releases; every launch must name it."""
    from kernels import triton_rows

    assert triton_rows.launch_options(1000, False)["enable_fp_fusion"] is triton_rows.FP_FUSION is True
    assert json.loads(RECORD.read_text())["fp_fusion"] is True
