"""samples.jsonl against the figures, the record of how they were made, and what other tools read, on the math demo."""

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import eval as evaluation
from support.evaluations import arguments, read, records
from tracelift.config import Config, to_dict
from tracelift.evaluation.__main__ import main as command
from tracelift.evaluation.export import ExportError, evalplus_lines
from tracelift.evaluation.figures.runs import compare_runs
from tracelift.evaluation.figures.votes import vote_of
from tracelift.evaluation.report.provenance import sha256
from tracelift.evaluation.samples import KEY
from tracelift.files import read_log
from tracelift.stats import permutation_exact
from tracelift.worlds.tasks import DemoTasks

ROOT = Path(__file__).resolve().parents[3]
DEMO = [
    "--eval.benchmarks",
    "demo:math",
    "--eval.limit",
    "24",
    "--eval.samples",
    "3",
    "--eval.k",
    "1,3",
    "--run.threads",
    "1",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo-evaluation")
    assert evaluation.main([*DEMO, "--eval.out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def rows(done):
    return read_log(done / "samples.jsonl")


def test_every_sample_is_one_line_with_the_same_columns(done, rows):
    (bench,) = read(done)["benchmarks"].values()
    assert len({tuple(r) for r in rows}) == 1, "columns and their order"
    assert len({tuple(r[k] for k in KEY) for r in rows}) == len(rows)
    assert Counter((r["arm"], r["mode"]) for r in rows) == {
        (arm, mode): 24 * (1 if mode == "greedy" else 3) for arm, modes in bench["arms"].items() for mode in modes
    }


def test_the_figures_follow_from_the_lines(done, rows):
    (bench,) = read(done)["benchmarks"].values()
    (traces,) = bench["traces"].values()
    for (arm, mode), some in by(rows, "arm", "mode").items():
        problems = by(some, "problem_id").values()
        shares = [sum(r["correct"] for r in p) / len(p) for p in problems]
        figure = bench["arms"][arm][mode]["accuracy"]
        assert figure["value"] == pytest.approx(sum(shares) / len(shares)) and figure["n"] == len(shares) == 24
        cost = bench["arms"][arm][mode]["cost"]
        asked = {(r["problem_id"], r["prompt"], r["seed"]): r for r in some if r["prompt"] is not None}
        assert cost["calls"] == len(asked) and cost["cpu_s"] >= 0
        assert cost["prompt"] == sum(r["prompt_tokens"] for r in asked.values())
        assert cost["generated"] == sum(r["artifact_tokens"] for r in asked.values())
    for mode in ("greedy", "sampled"):
        own = [r for r in rows if (r["arm"], r["mode"]) == ("planner", mode)]
        right = [r for r in own if r["correct"]]
        faults = Counter(r["fault"] for r in right if not r["valid"])
        found = {k.partition(": ")[2]: f["value"] for k, f in traces[mode].items() if k.startswith("wrong reasons: ")}
        assert faults and found == pytest.approx({fault: n / len(right) for fault, n in faults.items()})
        assert traces[mode]["cost"]["generated"] == sum(r["trace_tokens"] for r in own)
        assert traces[mode]["trace validity"]["value"] == pytest.approx(sum(r["valid"] for r in own) / len(own))


def test_faults_are_the_worlds_own(rows):
    tasks = {t.problem_id: t for t in DemoTasks(Config().data.eval_seed).first(24)}
    own = [r for r in rows if r["arm"] == "planner"]
    for r in own:
        found = tasks[r["problem_id"]].check(r["trace"])
        assert (r["valid"], r["fault"], r["fault_sentence"]) == (found.valid, found.fault, found.step)
    assert {r["fault"] for r in own} > {None}
    assert all(r["valid"] is r["fault"] is r["reply"] is None for r in rows if r["arm"] != "planner")


def test_results_say_how_they_were_made(done, rows):
    results = read(done)
    executor, (planner,) = results["executor"], results["systems"].values()
    (problems,), (prompts,) = results["problems"].values(), results["prompts"].values()
    assert executor["temperature"] == Config().executor.temperature and "{trace}" in executor["template"]
    assert planner["max_new_tokens"] == Config().planner.max_new_tokens and "{problem}" in planner["template"]
    assert problems["n"] == 24 and len(problems["sha256"]) == 64
    for arm, modes in prompts["executor"].items():
        for mode, said in modes.items():
            asked = [r["prompt"] for r in rows if (r["arm"], r["mode"]) == (arm, mode) and r["prompt"] is not None]
            assert said == {"sha256": sha256(asked), "first": asked[0], "n": len(asked)}
    config = json.dumps(results["config"], sort_keys=True)
    assert results["config_sha256"] == sha256([config]) and results["config"]["eval"]["limit"] == 24
    assert results["config"].keys() == to_dict(Config()).keys()
    assert results["hardware"]["cores"] >= 1 and results["versions"]["torch"]
    commit = results["source"]["commit"]
    assert (commit is None) == (not (ROOT / ".git").exists()) and (
        commit is None or re.fullmatch(r"[0-9a-f]{40}", commit)
    )


def test_a_hash_of_texts_tells_where_one_ends():
    assert sha256(["ab", "c"]) != sha256(["a", "bc"]) != sha256(["abc"]) != sha256([])


def test_the_notebook_of_the_docs_finds_the_figures_again(done, monkeypatch):
    pytest.importorskip("pandas")
    text = (ROOT / "docs/evaluation.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert code.count("assert") == 3
    monkeypatch.chdir(done)
    scope = {}
    exec(compile(code, "docs/evaluation.md", "exec"), scope)
    assert len(scope["wrong"]) and 0 < scope["accuracy"] < 1


def test_the_layout_of_lm_evaluation_harness(done, rows, tmp_path, capsys):
    words = ["export", str(done), "--format", "lm-eval", "--out", str(tmp_path), "--arm", "planner"]
    assert command(words) == 0
    files = sorted(tmp_path.iterdir())
    assert [str(f) for f in files] == sorted(capsys.readouterr().out.split())
    assert [re.sub(r"_\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}", "_DATE", f.name) for f in files] == [
        "samples_demo-math-planner-greedy_DATE.jsonl",
        "samples_demo-math-planner-sampled_DATE.jsonl",
    ]
    for file, mode in zip(files, ("greedy", "sampled"), strict=True):
        problems = by([r for r in rows if (r["arm"], r["mode"]) == ("planner", mode)], "problem_id")
        lines = read_log(file)
        assert [line["doc"]["problem_id"] for line in lines] == [name for (name,) in problems]
        for number, (line, samples) in enumerate(zip(lines, problems.values(), strict=True)):
            assert line["doc_id"] == number and line["target"] == samples[0]["gold"]
            assert line["resps"] == [line["filtered_resps"]] == [[r["artifact"] or "" for r in samples]]
            assert line["exact_match"] == pytest.approx(sum(r["correct"] for r in samples) / len(samples))
            assert line["arguments"]["gen_args_0"]["arg_0"] == (samples[0]["prompt"] or "")
            assert line["target_hash"] == hashlib.sha256(line["target"].encode()).hexdigest()


def test_the_layout_of_evalplus():
    row = {"program": "def f():\n    return 1\n"}
    lines = list(evalplus_lines("humaneval:HumanEval", {"HumanEval/0": [row, {"program": None}], "3": [row]}))
    assert [(x["task_id"], x["solution"]) for x in lines] == [
        ("HumanEval/0", row["program"]),
        ("HumanEval/0", ""),
        ("HumanEval/3", row["program"]),
    ]
    assert next(evalplus_lines("mbpp:mbpp", {"11": [row]}))["task_id"] == "Mbpp/11"
    with pytest.raises(ExportError, match="demo:code: EvalPlus has the tests of humaneval and mbpp"):
        list(evalplus_lines("demo:code", {"a": [row]}))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--arm", "nobody"], "holds nothing of that arm and mode; it has direct, greedy"),
        (["--format", "evalplus"], "EvalPlus has the tests of humaneval"),
    ],
)
def test_what_cannot_be_exported_is_said(done, tmp_path, capsys, words, says):
    assert command(["export", str(done), "--format", "lm-eval", "--out", str(tmp_path), *words]) == 1
    assert says in capsys.readouterr().err
    assert not any(p.stat().st_size for p in tmp_path.glob("*.jsonl"))


def test_a_file_that_is_no_evaluation_is_not_exported(tmp_path, capsys):
    (tmp_path / "samples.jsonl").write_text('{"step": 1}\n')
    assert command(["export", str(tmp_path), "--format", "lm-eval", "--out", str(tmp_path / "x")]) == 1
    assert "not the samples.jsonl of an evaluation" in capsys.readouterr().err
    assert command(["export", str(tmp_path / "no"), "--format", "lm-eval", "--out", str(tmp_path / "x")]) == 1


@pytest.mark.parametrize(
    ("kind", "one", "other", "same"),
    [
        ("number", "18", "The answer is 18.0.", True),
        ("number", "1,000", "1000", True),
        ("gsm8k", "So 3 + 4 = 7", "#### 7", True),
        ("number", "18", "19", False),
        ("latex", r"\boxed{\frac12}", r"so $\boxed{\frac12}$", True),
        ("latex", r"\boxed{1}", r"\boxed{2}", False),
    ],
)
def test_answers_vote_by_what_they_say(kind, one, other, same):
    assert (vote_of(one, kind) == vote_of(other, kind)) == same and vote_of(one, kind)
    assert vote_of("", kind) == ""


def test_sets_of_runs_are_compared_with_the_run_as_the_unit(job, tmp_path, capsys):
    """Two planners a side; --run's first gives the config, labels that clash are told apart."""
    (tmp_path / "p.jsonl").write_text((job / "problems.jsonl").read_text())
    problems = [
        "--eval.benchmarks",
        f"tasks:{tmp_path / 'p.jsonl'}",
        "--eval.modes",
        "greedy",
        "--eval.arms",
        "planner",
    ]
    words = [w for w in arguments(job, tmp_path / "out") if w not in ("--planner", str(job / "planner"))]
    run = tmp_path / "a"
    os.symlink(job / "planner", run)
    base = ["--planner", str(run)]
    sides = ["--against", str(job / "planner"), str(job / "executor")]
    assert evaluation.main([*words, *base, *sides, *problems]) == 0
    (path,) = (tmp_path / "out").glob("results-against-*.json")
    results = json.loads(path.read_text())
    labels = list(results["systems"])
    assert len(labels) == 3
    (name,) = results["benchmarks"]
    letters = json.loads(path.with_name(path.name.replace("results", "outcomes")).read_text())[name]
    (found,) = [c for c in results["run_comparisons"] if c["figure"] == "accuracy"]
    values = {label: sum(s == "1" for s in letters["arms"][f"planner {label}"]["greedy"]) / 20 for label in labels}
    assert found["runs_b"] == [values[labels[0]]] and found["runs_a"] == [values[x] for x in labels[1:]]
    assert found["p"] == permutation_exact(found["runs_a"], found["runs_b"]) == found["p_holm"]
    assert "runs as the unit" in capsys.readouterr().out


def test_runs_without_a_figure_are_not_compared_by_it():
    letters = {
        "arms": {f"planner {r}": {"greedy": ["1", "0", "-"]} for r in "abc"},
        "valid": {"a": {"greedy": ["1", "0", "-"]}, "b": {"greedy": ["-", "-", "-"]}, "c": {"greedy": ["1", "1", "1"]}},
    }
    assert [c["figure"] for c in compare_runs(letters, ["a"], ["c"])] == [
        "accuracy",
        "trace_validity",
        "wrong_reason_rate",
    ]
    assert [c["figure"] for c in compare_runs(letters, ["a", "b"], ["c"])] == ["accuracy"]
    assert compare_runs(letters, ["a"], ["c"])[0]["runs_a"] == [0.5], "what was not judged is in no mean"


def test_a_stopped_evaluation_still_knows_the_cost_of_the_whole(done, tmp_path):
    """The first half of the records, then the same command: prompt and generated tokens are those of one sitting."""
    lines = (done / "records.0.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "records.0.jsonl").write_text("".join(lines[: len(lines) // 2]))
    assert evaluation.main([*DEMO, "--eval.out", str(tmp_path), "--eval.chunk", "5"]) == 0
    (ours,), (whole,) = (read(f)["benchmarks"].values() for f in (tmp_path, done))
    for arm, modes in whole["arms"].items():
        cost, other = modes["sampled"]["cost"], ours["arms"][arm]["sampled"]["cost"]
        assert [other[k] for k in ("calls", "prompt", "generated")] == [
            cost[k] for k in ("calls", "prompt", "generated")
        ]
    kept = [r for r in records(tmp_path) if r["kind"] == "run"]
    older = [json.dumps({k: v for k, v in r.items() if k != "spent"}) + "\n" for r in kept]
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "records.0.jsonl").write_text("".join(older))
    assert evaluation.main([*DEMO, "--eval.out", str(tmp_path / "older")]) == 0
    (bench,) = read(tmp_path / "older")["benchmarks"].values()
    assert all(v is None for v in bench["arms"]["direct"]["sampled"]["cost"].values()), "an older record does not say"


def by(rows, *names):
    out = defaultdict(list)
    for r in rows:
        out[tuple(r[n] for n in names) if len(names) > 1 else (r[names[0]],)].append(r)
    return out
