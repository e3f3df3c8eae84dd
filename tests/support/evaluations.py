"""How tests run eval.py on the tiny job and read what it leaves."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest


def arguments(job, out, *extra):
    return [
        "--planner",
        str(job / "planner"),
        "--executor.path",
        str(job / "executor"),
        "--reward_model.path",
        str(job / "reward_model"),
        "--planner.max_new_tokens",
        "20",
        "--executor.max_new_tokens",
        "4",
        "--run.threads",
        "1",
        "--eval.benchmarks",
        f"tasks:{job / 'problems-with-traces.jsonl'}",
        "--eval.out",
        str(out),
        "--eval.samples",
        "3",
        "--eval.k",
        "1,3",
        "--eval.resamples",
        "200",
        "--eval.traces_shown",
        "0",
        *extra,
    ]


def read(out, name="results.json"):
    return json.loads((out / name).read_text())


def records(out):
    return [json.loads(line) for path in sorted(out.glob("records.*.jsonl")) for line in path.read_text().splitlines()]


CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)


def dom(page: Path) -> str:
    """The document after its script has run (before the load event, so no waiting). Starting a browser on a machine with
    other work to do may fail, which says nothing about the page: three tries, then a skip that says so."""
    for attempt in range(3):
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={page.parent / f'profile-{page.stem}-{attempt}'}",
            "--dump-dom",
            page.as_uri(),
        ]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            continue
        if ran.stdout.rstrip().endswith("</html>"):
            return ran.stdout
    pytest.skip("chromium is here but gave no document in three tries: the page was not tried in a browser")
