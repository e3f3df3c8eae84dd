"""The script for the day a GPU is there: each part has its limit, and what was done is on disk whatever happens later."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.gpu import Part


def told(tmp_path, monkeypatch, parts, *words):
    monkeypatch.setattr(gpu, "parts", lambda out, dry, base: parts)
    monkeypatch.setattr(sys, "argv", ["gpu", "--dry", "--out", str(tmp_path), *words])
    code = gpu.main()
    return code, json.loads((tmp_path / "summary.json").read_text())["parts"]


def test_a_part_past_its_limit_is_killed_with_its_children_and_the_next_begins(tmp_path, monkeypatch):
    child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    parts = [Part("hangs", ("-c", child), 5), Part("works", ("-c", "print('fine')"), 60)]
    code, found = told(tmp_path, monkeypatch, parts)
    assert code == 0 and found["hangs"]["status"] is None
    assert found["works"]["status"] == 0 and found["works"]["tail"] == ["fine"]
    status = Path(f"/proc/{found['hangs']['tail'][0]}/status")
    assert not status.exists() or "Z (zombie)" in status.read_text()


def test_a_part_that_fails_is_told_and_the_others_run(tmp_path, monkeypatch):
    write = f"open({str(tmp_path / 'figures.json')!r}, 'w').write('[1]')"
    parts = [Part("breaks", ("-c", "raise SystemExit(3)"), 60), Part("figures", ("-c", write), 60)]
    code, found = told(tmp_path, monkeypatch, parts)
    assert code == 1 and found["breaks"]["status"] == 3 and found["figures"]["figures"] == [1]


def test_what_no_time_is_left_for_is_not_begun(tmp_path, monkeypatch):
    code, found = told(tmp_path, monkeypatch, [Part("late", ("-c", "print(1)"), 60)], "--minutes", "0")
    assert code == 0 and found["late"]["tail"] == ["not begun: no time was left"]


@pytest.mark.parametrize("name", ["kernels", "sampler", "step"])
def test_a_part_runs_dry(name, tmp_path):
    """As `make gpu-dry` runs it. Its first part, the tests marked gpu, is collected with all others already."""
    part = next(p for p in gpu.parts(tmp_path, True, None) if p.name == name)
    result = gpu.run(part, tmp_path / "log", part.limit_s)
    assert result["status"] == 0, result["tail"]
    assert name == "kernels" or json.loads((tmp_path / f"{name}.json").read_text())  # which prints tables instead
    assert name != "kernels" or any(line.startswith("| ours") for line in (tmp_path / "log").read_text().splitlines())


@pytest.mark.parametrize("dry", [True, False])
def test_all_parts_fit_into_the_time_and_know_their_options(tmp_path, dry):
    """What is asked of each script is among its options; `make gpu-dry` runs them."""
    parts = gpu.parts(tmp_path, dry, None)
    assert sum(p.limit_s for p in parts) <= 12 * 60 and [p.name for p in parts] == [
        "tests",
        "kernels",
        "sampler",
        "step",
    ]
    for part in parts[1:]:
        script = part.words[1].replace(".", "/") + ".py" if part.words[0] == "-m" else part.words[0]
        source = (gpu.ROOT / script).read_text()
        assert all(f'"{word}"' in source for word in part.words if word.startswith("--")), part
