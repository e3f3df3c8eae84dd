"""eval.py on HumanEval's file format, end to end with models that are real and tiny: prompts, tags, extraction, sandbox,
verdicts, pass@k. The models have learned three problems by heart, some of them wrong, so every outcome is known."""

import json
import shutil

import pytest
import torch

import eval as evaluation
from tracelift.config import load_config
from tracelift.distributed.world import World
from tracelift.runs.folder import RunFolder
from tracelift.sandbox import SandboxError, default_sandbox
from tracelift.tasks.prompts import BASELINE, CLOSE, EXECUTOR, OPEN, PLANNER
from tracelift.training.sft import run_sft
from tracelift.worlds.build.tokenizer import save_tokenizer, train_tokenizer

SHAPE = "{hidden_size=48, intermediate_size=96, num_layers=2, num_heads=2, head_dim=24, max_positions=512}"
PROBLEMS = {  # name: (what it does, its body, three tests)
    "plus": (
        "Sum.",
        "    return a + b\n",
        ["candidate(1, 2) == 3", "candidate(0, 5) == 5", "abs(candidate(2, 2) - 4) < 1e-9"],
    ),
    "minus": ("Gap.", "    return a - b\n", ["candidate(1, 2) == -1", "candidate(5, 0) == 5", "candidate(7, 7) == 0"]),
    "times": ("Area.", "    return a * b\n", ["candidate(1, 2) == 2", "candidate(3, 3) == 9", "candidate(0, 4) == 0"]),
}
TRACES = {
    "plus": f"{OPEN}a and b together{CLOSE}",
    "minus": f"{OPEN}b off a{CLOSE}",
    "times": f"{OPEN}a times b, and on and on",
}
DIRECT = {  # a continuation of the stub; one that is wrong; a program with words around it
    "plus": "    return a + b\n", "minus": "    return b - a\n",
    "times": "Sure:\n```python\ndef times(a, b):\n    return a * b\n```\nDone.",
}  # fmt: skip
GUIDED = {
    "plus": "```python\ndef plus(a, b):\n    raise SystemExit(0)\n```",
    "minus": "def minus(a, b):\n    return a - b\n",
}


def stub(name: str) -> str:
    return f'def {name}(a, b):\n    """{PROBLEMS[name][0]}"""\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """HumanEval.jsonl, and planner/ and executor/ that know it by heart. Some seconds on one core."""
    try:
        default_sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("humaneval")
    rows = [
        {
            "task_id": f"T/{name}",
            "prompt": stub(name),
            "entry_point": name,
            "canonical_solution": body,
            "test": "def check(candidate):\n" + "".join(f"    assert {t}\n" for t in tests),
        }
        for name, (_, body, tests) in PROBLEMS.items()
    ]
    (folder / "HumanEval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    planner = [(PLANNER["code"].format(problem=stub(name)), TRACES[name]) for name in PROBLEMS]
    executor = [(BASELINE["code"].format(problem=stub(name)), DIRECT[name]) for name in PROBLEMS]
    executor += [
        (EXECUTOR["code"].format(problem=stub(name), trace=TRACES[name][len(OPEN) : -len(CLOSE)]), program)
        for name, program in GUIDED.items()
    ]
    save_tokenizer(train_tokenizer([a + b for a, b in planner + executor] * 3, 600), folder / "tokenizer")
    for name, pairs in (("planner", planner), ("executor", executor)):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in pairs))
        config = load_config(
            None,
            [
                "--run.stage",
                "sft",
                "--run.out",
                str(folder / f"{name}-run"),
                "--run.steps",
                "80",
                "--run.threads",
                "1",
                "--sft.shape",
                SHAPE,
                "--sft.tokenizer",
                str(folder / "tokenizer"),
                "--sft.train",
                str(data),
                "--sft.batch_size",
                str(len(pairs)),
                "--optim.lr",
                "0.01",
            ],
        )
        run = RunFolder(folder / f"{name}-run")
        run.prepare(config)
        run_sft(config, run, World(), torch.device("cpu"), lambda line: None).rename(folder / name)
    return folder


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    assert evaluation.main(arguments(folder, out)) == 0
    return out


def arguments(folder, out, *extra):
    return [
        "configs/eval-code.toml",
        "--planner",
        str(folder / "planner"),
        "--executor.path",
        str(folder / "executor"),
        "--planner.max_new_tokens",
        "40",
        "--executor.max_new_tokens",
        "60",
        "--eval.benchmarks",
        f"humaneval:{folder / 'HumanEval.jsonl'}",
        "--eval.arms",
        "direct,planner,foreign",
        "--eval.samples",
        "4",
        "--eval.k",
        "1,4",
        "--eval.resamples",
        "100",
        "--run.threads",
        "1",
        "--eval.out",
        str(out),
        *extra,
    ]


def records(out, kind):
    rows = [json.loads(line) for line in (out / "records.0.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def test_the_models_said_what_they_had_learned(out, folder):
    greedy = {r["problem_id"]: r["samples"][0] for r in records(out, "trace") if len(r["samples"]) == 1}
    assert {name: greedy[f"T/{name}"]["text"] for name in PROBLEMS} == TRACES
    assert greedy["T/times"]["trace"] is None and greedy["T/plus"]["trace"] == "a and b together"


def test_verdicts_are_those_of_the_programs(out):
    (letters,) = json.loads((out / "outcomes.json").read_text()).values()
    assert letters["problems"] == ["T/plus", "T/minus", "T/times"] and letters["rule"] == "tests"
    assert letters["arms"]["direct"]["greedy"] == ["1", "0", "1"]
    assert letters["arms"]["planner"]["greedy"] == ["0", "1", "0"]  # exits with 0; right; no trace, no call
    details = {s["detail"] for r in records(out, "run") for s in r["samples"] if "SystemExit" in (s["artifact"] or "")}
    assert details and all("runtime_error" in d for d in details), details
    assert not any("ERROR" in s["verdicts"].values() for r in records(out, "run") for s in r["samples"])


def test_other_limits_judge_anew(out, folder, tmp_path):
    """A verdict under one limit of memory or time is not taken over under another; the traces are."""
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    for limits in (
        ["--sandbox.memory_mb", "512"],
        ["--sandbox.wall_seconds", "11"],
        ["--sandbox.cpu_seconds", "3"],
        [],
    ):
        before = len(records(copy, "run"))
        more = ["--eval.arms", "direct", "--eval.modes", "greedy", *limits]
        assert evaluation.main(arguments(folder, copy, *more)) == 0
        assert len(records(copy, "run")) - before == (3 if limits else 0), limits
    assert len(records(copy, "trace")) == len(records(out, "trace"))


def test_pass_at_k_counts_problems_not_samples(out):
    (bench,) = json.loads((out / "results.json").read_text())["benchmarks"].values()
    (letters,) = json.loads((out / "outcomes.json").read_text()).values()
    for arm in ("direct", "planner"):
        strings = letters["arms"][arm]["sampled"]
        figures = bench["arms"][arm]["sampled"]
        assert figures["pass@1"]["value"] == pytest.approx(sum(s.count("1") / 4 for s in strings) / 3)
        assert figures["pass@4"]["value"] == pytest.approx(sum("1" in s for s in strings) / 3)
