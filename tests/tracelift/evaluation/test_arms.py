"""eval.py end to end on the tiny job: arms, controls, shared seeds, resume, ranks, two systems, the page in a real browser."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import eval as evaluation
from support.evaluations import CHROMIUM, arguments, dom, read, records
from tracelift.evaluation import traces as stage1
from tracelift.evaluation.arms import traces_of_arm
from tracelift.evaluation.bench import Answer, WrittenTrace
from tracelift.executor.backend import Reply
from tracelift.executor.local import LocalBackend
from tracelift.rl import rollout
from tracelift.stats import pass_at_k
from tracelift.verify.verdict import Verdict

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def traced_job(job):
    """The tiny job's problems with their reference traces; the last has none."""
    rows = [json.loads(line) for line in (job / "problems.jsonl").read_text().splitlines()]
    for r in rows[:-1]:
        a, b = re.findall(r"\d", r["problem"])
        r["trace"] = f"{a} + {b} = {r['answer']}"
    (job / "problems-with-traces.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return job


@pytest.fixture(scope="module")
def done(traced_job, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation")
    assert evaluation.main(arguments(traced_job, out)) == 0
    return out


def test_figures_follow_from_the_outcomes(done):
    """Every accuracy, pass@k and difference again, from the letters alone."""
    (bench,) = read(done)["benchmarks"].values()
    (letters,) = read(done, "outcomes.json").values()
    assert set(bench["arms"]) == {"direct", "planner", "reference", "foreign"} and len(letters["problems"]) == 20
    for label, modes in letters["arms"].items():
        for mode, strings in modes.items():
            known = [s for s in strings if "-" not in s]
            assert len(known) == (19 if label == "reference" else 20)
            assert {len(s) for s in known} == {1 if mode == "greedy" else 3}
            figures = bench["arms"][label][mode]
            share = sum(s.count("1") / len(s) for s in known) / len(known)
            assert figures["accuracy"]["value"] == pytest.approx(share)
            assert figures["accuracy"]["low"] <= share <= figures["accuracy"]["high"]
            if mode == "sampled":
                wanted = sum(pass_at_k(3, s.count("1"), 3) for s in known) / len(known)
                assert figures["pass@3"]["value"] == pytest.approx(wanted) and figures["pass@1"][
                    "value"
                ] == pytest.approx(share)
    for c in read(done)["comparisons"]:
        a, b = (letters["arms"][c[side]][c["mode"]] for side in "ab")
        both = [(x, y) for x, y in zip(a, b, strict=True) if "-" not in x + y]
        gap = sum(y.count("1") / len(y) - x.count("1") / len(x) for x, y in both) / len(both)
        assert c["difference"] == pytest.approx(gap) and c["n"] == len(both) and c["p_holm"] == pytest.approx(c["p"])
        if c["mode"] == "greedy":
            assert c["gained"] - c["lost"] == round(gap * len(both))


def test_the_executor_follows_the_trace_it_is_given(done):
    """The tiny executor copies: a reference trace must lift it, and each arm's artifacts belong to its own prompts."""
    (bench,) = read(done)["benchmarks"].values()
    accuracy = {label: f["greedy"]["accuracy"]["value"] for label, f in bench["arms"].items()}
    assert accuracy["reference"] > max(accuracy["direct"], accuracy["foreign"])


def answer_by(monkeypatch, backend):
    """eval.py's executor answers through `backend`."""
    real = evaluation.build_executor

    def build(config, device, cache):
        executor = real(config, device, cache)
        executor.backend = backend
        return executor

    monkeypatch.setattr(evaluation, "build_executor", build)


def test_runs_share_executor_seeds_between_arms(traced_job, tmp_path, monkeypatch):
    seen = {}

    class Spy:
        fingerprint = "spy"

        def complete(self, requests, progress=None):
            for r in requests:
                seen.setdefault("Guidance" in r.prompt, set()).add((r.prompt.split("\n")[0], r.seed))
            return [Reply("1", 1) for _ in requests]

    answer_by(monkeypatch, Spy())
    assert evaluation.main(arguments(traced_job, tmp_path, "--eval.modes", "sampled")) == 0
    assert seen[True] == seen[False] and len(seen[True]) == 3 * 20


def test_foreign_traces_are_the_planners_for_another_problem(done, traced_job):
    from tracelift.build import load_benchmark
    from tracelift.config import Config

    problems = load_benchmark(f"tasks:{traced_job / 'problems-with-traces.jsonl'}", Config()).problems

    def written(trace):
        return WrittenTrace("", trace, 1, "stop")

    traces = [[written(f"z{i}.{j}" if (i, j) != (1, 0) else None) for j in range(2)] for i in range(20)]
    given = traces_of_arm("foreign", problems, traces, 2)
    assert given[0] == ["z2.0", "z1.1"], "a format failure is passed over, for that sample alone"
    assert given[19] == ["z0.0", "z0.1"]
    assert traces_of_arm("planner", problems, traces, 2)[1] == [None, "z1.1"]
    nothing = [[written("z")]] + [[written(None)]] * 19
    assert traces_of_arm("foreign", problems, nothing, 1)[0] is None, "its own trace is never borrowed"


def test_a_second_evaluation_repeats_nothing_and_says_the_same(done, traced_job, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(done, copy)
    before = read(copy)
    monkeypatch.setattr(stage1, "sample_traces", lambda *a: pytest.fail("sampled again"))
    monkeypatch.setattr(LocalBackend, "complete", lambda *a: pytest.fail("executed again"))
    assert evaluation.main(arguments(traced_job, copy)) == 0
    after = read(copy)
    assert after["benchmarks"] == before["benchmarks"] and after["comparisons"] == before["comparisons"]


def test_cut_off_in_a_line_it_goes_on(done, traced_job, tmp_path):
    whole = (done / "records.0.jsonl").read_bytes()
    (tmp_path / "records.0.jsonl").write_bytes(whole[: len(whole) * 2 // 5])
    assert evaluation.main(arguments(traced_job, tmp_path, "--eval.chunk", "7")) == 0
    for name in ("traces", "arms"):
        ours, theirs = (next(iter(read(o)["benchmarks"].values()))[name] for o in (tmp_path, done))
        assert near(ours, theirs), "the same figures, whatever the chunks and where it was killed"
    assert read(tmp_path, "outcomes.json") == read(done, "outcomes.json")


def near(a, b):
    """Equal up to the rounding of RM scores computed in other batches; of cost, what no sharing among problems
    changes."""
    if isinstance(a, dict):
        same = ("calls", "prompt", "generated") if "cpu_s" in a else a
        return a.keys() == b.keys() and all(near(a[k], b[k]) for k in same)
    return a == pytest.approx(b, abs=1e-6)


@pytest.mark.parametrize(
    "change", [["--run.seed", "1"], ["--executor.temperature", "0.9"], ["--executor.max_new_tokens", "3"]]
)
def test_other_settings_are_other_records(done, traced_job, tmp_path, change):
    """What a record depends on is in its key: nothing of another seed or setting is taken over."""
    shutil.copy(done / "records.0.jsonl", tmp_path / "records.0.jsonl")
    assert (
        evaluation.main(arguments(traced_job, tmp_path, *change, "--eval.modes", "sampled", "--eval.arms", "direct"))
        == 0
    )
    fresh = records(tmp_path)[len(records(done)) :]
    assert len(fresh) == 20 and all(r["kind"] == "run" for r in fresh)


def test_a_trace_ends_at_the_planners_stop_strings(traced_job, tmp_path):
    """A planner that talks on after its block is cut there in evaluation as in training."""
    assert evaluation.main(arguments(traced_job, tmp_path, "--planner.stop", "+", "--eval.arms", "planner")) == 0
    texts = [s["text"] for r in records(tmp_path) if r["kind"] == "trace" for s in r["samples"]]
    assert any("+" in t for t in texts) and all("+" not in t[:-1] for t in texts)


def test_killed_in_the_middle_it_finds_the_same(done, traced_job, tmp_path):
    """kill -9 once some records are on disk, then the same command: the outcomes of an evaluation never killed."""
    command = [sys.executable, "eval.py", *arguments(traced_job, tmp_path, "--eval.chunk", "3")]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    path = tmp_path / "records.0.jsonl"
    while first.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") > 50):
        time.sleep(0.005)
    first.kill()
    first.wait()
    assert not (tmp_path / "results.json").exists() and path.stat().st_size > 0, "killed in the middle"
    assert evaluation.main(command[2:]) == 0
    assert read(tmp_path, "outcomes.json") == read(done, "outcomes.json")
    kept = [r["key"] for r in records(tmp_path)]
    assert len(kept) == len(set(kept)), "nothing was done twice"


def test_two_ranks_find_what_one_finds(done, traced_job, tmp_path):
    command = [str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc_per_node=2", "eval.py"]
    subprocess.run(
        [*command, *arguments(traced_job, tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert read(tmp_path, "outcomes.json") == read(done, "outcomes.json")
    assert (tmp_path / "records.1.jsonl").stat().st_size > 0


def test_two_systems_are_compared_on_the_same_problems(traced_job, tmp_path, capsys):
    """The executor itself as rival planner: it writes no block at all."""
    assert (
        evaluation.main(
            arguments(traced_job, tmp_path, "--against", str(traced_job / "executor"), "--eval.modes", "greedy")
        )
        == 0
    )
    name = next(p for p in tmp_path.glob("results-against-*.json"))
    results = read(tmp_path, name.name)
    rival = list(results["systems"])[1]
    (duel,) = [c for c in results["comparisons"] if c["a"] == f"planner {rival}" and c["b"].startswith("planner ")]
    assert duel["n"] == 20 and duel["test"] == "McNemar exact" and 0 <= duel["p"] <= 1
    (bench,) = results["benchmarks"].values()
    assert bench["arms"][f"planner {rival}"]["greedy"]["accuracy"]["value"] == 0.0
    assert "format failures" in capsys.readouterr().out


def test_a_run_is_evaluated_with_its_own_config_and_model(traced_job, tmp_path):
    """--run takes planner, prompts and lengths from the run; --against the planner it began from; both end in RUN/eval."""
    import train
    from support.tiny_job import planner_arguments

    run = tmp_path / "run"
    assert train.main(planner_arguments(traced_job, run, "--run.steps", "1", "--data.eval_problems", "0")) == 0
    command = [
        "--run",
        str(run),
        "--against",
        str(traced_job / "planner"),
        "--eval.modes",
        "greedy",
        "--run.threads",
        "1",
        "--eval.benchmarks",
        f"tasks:{traced_job / 'problems-with-traces.jsonl'}",
    ]
    assert evaluation.main(command) == 0
    (results,) = [json.loads(p.read_text()) for p in (run / "eval").glob("results-against-*.json")]
    assert [s["path"] for s in results["systems"].values()] == [str(run / "final"), str(traced_job / "planner")]
    prints = [s["fingerprint"] for s in results["systems"].values()]
    assert prints[0] != prints[1] and results["executor"]["path"] == str(traced_job / "executor")
    shutil.rmtree(run / "final")
    assert evaluation.main([*command[:2], *command[4:]]) == 0, "without final/ the newest checkpoint is taken"
    assert list(read(run / "eval")["systems"].values())[0]["fingerprint"] == prints[0]


def test_unjudged_runs_stop_an_evaluation_or_leave_its_figures(traced_job, tmp_path, monkeypatch, capsys):
    real = LocalBackend.complete

    def flaky(backend, requests, progress=None):
        replies = real(backend, requests, progress)
        return [
            Reply("", 0, "the server is gone") if q.prompt.startswith("What is 0") else r
            for q, r in zip(requests, replies, strict=True)
        ]

    monkeypatch.setattr(LocalBackend, "complete", flaky)
    base = ["--eval.modes", "greedy", "--eval.arms", "direct"]
    assert evaluation.main(arguments(traced_job, tmp_path, *base)) == 2
    assert "the server is gone" in capsys.readouterr().err
    assert evaluation.main(arguments(traced_job, tmp_path, *base, "--eval.max_error_share", "0.9")) == 0
    (bench,) = read(tmp_path)["benchmarks"].values()
    figures = bench["arms"]["direct"]["greedy"]
    assert figures["unjudged"] > 0 and figures["accuracy"]["n"] == 20 - figures["unjudged"]
    monkeypatch.setattr(LocalBackend, "complete", real)
    assert evaluation.main(arguments(traced_job, tmp_path, *base)) == 0, "errors are not kept: they are tried again"
    (bench,) = read(tmp_path)["benchmarks"].values()
    assert bench["arms"]["direct"]["greedy"]["unjudged"] == 0


def test_a_reply_without_a_trace_does_not_hide_that_every_run_failed(traced_job, tmp_path, monkeypatch, capsys):
    real = rollout.extract_trace
    monkeypatch.setattr(rollout, "extract_trace", lambda text, most: real(text, most) if "3" in text else None)
    monkeypatch.setattr(
        LocalBackend, "complete", lambda self, requests, progress=None: [Reply("", 0, "down")] * len(requests)
    )
    extra = ["--eval.modes", "sampled", "--eval.arms", "planner", "--eval.max_error_share", "0.9"]
    assert evaluation.main(arguments(traced_job, tmp_path, *extra)) == 2
    asked, of = map(int, re.search(r"(\d+) of (\d+) runs could not be judged", capsys.readouterr().err).groups())
    assert 0 < asked == of < 60, "of 20 problems with 3 samples each"


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--eval.arms", "plan"], "'plan' is none of direct, planner, reference, foreign"),
        (["--eval.limit", "-3"], "eval.limit must be at least 0, got -3"),
        (["--eval.k", "9"], "pass@9 needs 1 to eval.samples = 3"),
        (["--eval.sample", "9"], "did you mean 'samples'?"),
        (["--planner", "nowhere"], "nowhere: no such folder"),
        (["--run", "nowhere"], "nowhere: not a run folder"),
        (["--eval.benchmarks", "humaneval:x.jsonl"], "executor.stop holds a line break"),
    ],
)
def test_what_cannot_be_meant_is_refused(traced_job, tmp_path, capsys, extra, says):
    assert evaluation.main([*arguments(traced_job, tmp_path), *extra]) == 1
    assert says in capsys.readouterr().err


def test_a_folder_that_any_run_has_is_named_after_its_run(traced_job, tmp_path, monkeypatch):
    """Two runs' final models must not share the folder that is the default for results."""
    for path, name in (
        ("runs/a/final", "a-final"),
        ("runs/a/checkpoints/step-000010/model", "a-step-000010-model"),
        ("x/planner", "x-planner"),
        ("x/llama", "llama"),
        ("/final", "final"),
    ):
        assert evaluation.label_of(path) == name
    command = arguments(
        traced_job,
        tmp_path,
        "--eval.out",
        "",
        "--eval.modes",
        "greedy",
        "--eval.arms",
        "planner",
        "--reward_model.path",
        "",
    )[2:]
    monkeypatch.chdir(tmp_path)
    for run in ("a", "b"):
        shutil.copytree(traced_job / "planner", tmp_path / run / "final")
        assert evaluation.main(["--planner", f"{run}/final", *command]) == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["eval-a-final", "eval-b-final"]


def test_help_lists_every_key(capsys):
    assert evaluation.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "--against" in out and "--eval.benchmarks" in out and "--planner.path" in out


def test_on_math_files_the_executor_is_asked_for_an_expression(traced_job, tmp_path, monkeypatch):
    pytest.importorskip("math_verify")
    asked = []
    (tmp_path / "m.jsonl").write_text(json.dumps({"problem": "What is 1 + 1?", "answer": "2\\sqrt{3}"}) + "\n")

    class Spy:
        fingerprint = "spy"

        def complete(self, requests, progress=None):
            asked.extend(r.prompt for r in requests)
            return [Reply("2\\sqrt{3}", 1) for _ in requests]

    answer_by(monkeypatch, Spy())
    command = arguments(
        traced_job,
        tmp_path / "out",
        "--eval.modes",
        "greedy",
        "--eval.arms",
        "direct",
        "--executor.prompt",
        "math",
        "--executor.baseline_prompt",
        "math",
    )
    assert evaluation.main([*command, "--eval.benchmarks", f"math:{tmp_path / 'm.jsonl'}"]) == 0
    assert len(asked) == 1 and "the final answer in LaTeX" in asked[0] and "final number" not in asked[0]
    (bench,) = read(tmp_path / "out")["benchmarks"].values()
    assert bench["arms"]["direct"]["greedy"]["accuracy"]["value"] == 1.0, "a bare answer is read as LaTeX"


# -- comparisons -----------------------------------------------------------------------------------------------------


def answered(*samples):
    """One arm's answers: a string of outcomes per problem."""
    return [[Answer("", "", 1, {"exact": Verdict.PASS if x == "1" else Verdict.FAIL}) for x in s] for s in samples]


def test_few_problems_are_not_called_sure_or_detectable():
    """What the table says of a handful of problems: p, interval and planning agree, and what is unknown is a dash."""
    from tracelift.evaluation.figures.analysis import compare
    from tracelift.evaluation.table import columns, comparison_rows

    def row(a, b, mode):
        c = compare(answered(*a), answered(*b), "exact", 200)
        return c, columns(comparison_rows([{"a": "direct", "b": "planner", "p_holm": c["p"], **c}]))

    greedy, text = row("00000111", "11100111", "greedy")
    assert (greedy["difference"], greedy["p"]) == (0.375, 0.25) and greedy["low"] < 0 < 0.375 < greedy["high"]
    assert greedy["least_detectable"] > 0.75 and "[-9.7, +69.7]" in text, "not the 37.5 points that were seen"
    one, text = row("0", "1", "greedy")
    assert one["low"] < 0 and one["p"] == 1 and one["least_detectable"] is None and re.search(r" 1 +- +McNemar", text)
    few, text = row(["0000"] * 4, ["1110", "1101", "0111", "1011"], "sampled")
    assert (few["difference"], few["p"], few["least_detectable"]) == (0.75, 0.125, None) and few["low"] <= 0
    same, text = row(["01"] * 30, ["01"] * 30, "sampled")
    assert (
        same["least_detectable"] is None
        and same["low"] < 0 < same["high"]
        and re.search(r" - +McNemar| - +sign flips", text)
    )
    many, text = row(["01", "00", "10"] * 10, ["11", "01", "10"] * 10, "sampled")
    assert (
        many["p"] < 0.01 and many["low"] > 0 and many["least_detectable"] > 0 and not re.search(r" - +sign flips", text)
    )
    json.dumps([greedy, one, few, same, many], allow_nan=False)


# -- the Reason RM ---------------------------------------------------------------------------------------------------


def test_reason_rm_figures(traced_job, tmp_path, capsys):
    command = [
        "reward-model",
        "--reward_model.path",
        str(traced_job / "reward_model"),
        "--run.threads",
        "1",
        "--eval.groups",
        str(traced_job / "groups-dev.jsonl"),
        "--eval.out",
        str(tmp_path),
    ]
    assert evaluation.main(command) == 0
    found = read(tmp_path, "reward_model.json")
    assert set(found["per kind"]) == {f"off_by_{k}" for k in (1, 2, 3, 4)} and all(
        v["pairs"] == 10 for v in found["per kind"].values()
    )
    each = [v["pair accuracy"] for v in found["per kind"].values()]
    assert found["pair accuracy"]["value"] == pytest.approx(sum(each) / 4)
    assert sum(b["n"] for b in found["calibration"]["bins"]) == found["traces"] == 50
    for d in found["dimensions"].values():  # given 1 for a wrong sum, 4 for a right one
        rows = {r["given"]: r for r in d["expected by given label"]}
        assert {g: r["n"] for g, r in rows.items()} == {1: 40, 4: 10} and all(
            0 <= r["expected"] <= 4 for r in rows.values()
        )
        assert d["MAE"] >= (40 * abs(rows[1]["expected"] - 1) + 10 * abs(rows[4]["expected"] - 4)) / 50 - 1e-9
    assert (tmp_path / "reward_model.png").stat().st_size > 10_000
    said = capsys.readouterr().out
    assert "expected calibration error" in said and "mean expected label where" in said


def test_calibration_against_a_hand_computed_case():
    from tracelift.evaluation.rm import calibration

    out = calibration([0.05, 0.07, 0.95, 1.0], [0.0, 0.2, 1.0, 0.8])
    assert [b["n"] for b in out["bins"]] == [2, 2]
    assert out["expected_calibration_error"] == pytest.approx((2 * abs(0.06 - 0.1) + 2 * abs(0.975 - 0.9)) / 4)


def test_pair_accuracy_is_one_ratio_over_groups(monkeypatch):
    """Groups of unequal size: value and interval are of the same figure, pairs won over pairs."""
    from types import SimpleNamespace as Of

    from tracelift.evaluation import rm

    monkeypatch.setattr(rm, "_dimensions", lambda rows: {})
    scores = {"good": 0.5, "low": 0.2, "high": 0.8}

    def group(*kinds):
        made = [
            Of(
                reasoning=k,
                negative_kind=None if k == "good" else k,
                positive_kind=None,
                rubric=Of(total=0.5, dimensions={}),
            )
            for k in kinds
        ]
        return Of(task_type="math", problem="?", type_text="", candidates=made)

    scorer = Of(score=lambda items: [Of(total=scores[i.reasoning], error=None) for i in items])
    groups = [
        group("good", "low"),
        group("good", "low", "low", "low", "high"),
        group("good", "good", "low", "high"),
    ] * 4
    found = rm.evaluate_rm(scorer, groups)["pair accuracy"]
    won, pairs = (1, 3, 2) * 4, (1, 4, 4) * 4
    value = sum(won) / sum(pairs)
    gaps = sum((w - value * n) ** 2 for w, n in zip(won, pairs, strict=True))
    half = 1.959964 * (12 / 11 * gaps) ** 0.5 / sum(pairs)
    assert (found["value"], found["n"]) == (pytest.approx(value), 12)
    assert (found["low"], found["high"]) == pytest.approx((value - half, min(1.0, value + half)), abs=1e-6)
    sure = rm.evaluate_rm(scorer, [group("good", "low")] * 4)["pair accuracy"]
    assert sure["value"] == 1.0 and 0.3 < sure["low"] < 0.6, "Wilson's, over groups"


def test_ratios_by_group_centre_where_they_lie_and_equal_groups_give_the_mean():
    from tracelift.stats.figures import average, ratio

    assert ratio([1, 3, 2], [4, 4, 4]) == pytest.approx(average([0.25, 0.75, 0.5], (0.0, 1.0)))
    odd = ratio([20.0, 4.0, 9.0] * 4, [40, 10, 14] * 4)
    assert odd["value"] == 33 / 64 == pytest.approx((odd["low"] + odd["high"]) / 2)


# -- the page in a browser -------------------------------------------------------------------------------------------

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> & <b>bold</b> @DATA@"


@pytest.fixture(scope="module")
def clicked(done, tmp_path_factory):
    """The report's document before and after a real click on the row of problem p3, whose trace holds hostile markup."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page was not tried in a browser")
    from html import unescape

    folder = tmp_path_factory.mktemp("page")
    text = (done / "report.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    data["benchmarks"][0]["problems"][3]["arms"]["planner"]["greedy"][0]["given"] = HOSTILE
    text = re.sub(
        r'(id="data">).*?(</script>)',
        lambda m: m[1] + json.dumps(data).replace("<", "\\u003c") + m[2],
        text,
        flags=re.DOTALL,
    )
    (folder / "before.html").write_text(text)
    click = "document.querySelector('.row[data-id=\"p3\"] > button').click();\n</script>\n</body>"
    (folder / "after.html").write_text(text.replace("</script>\n</body>", click))
    return dom(folder / "before.html"), dom(folder / "after.html"), data, unescape


def test_one_click_shows_trace_artifact_verdict_and_dimensions(clicked):
    before, after, data, unescape = clicked
    problem = data["benchmarks"][0]["problems"][3]
    assert before.count('class="row"') == 20 and 'class="open"' not in before and before.count('class="plot"') >= 4
    assert after.count('class="open"') == 1
    opened = unescape(after[after.index('class="open"') :])
    sample = problem["arms"]["planner"]["greedy"][0]
    assert HOSTILE in opened and sample["artifact"] in opened and sample["verdict"] in opened
    assert problem["problem"] in opened and problem["arms"]["foreign"]["greedy"][0]["given"] in opened
    for name, value in zip(data["dimensions"], sample["rm"]["dimensions"], strict=True):
        assert name in opened and f"{value:.2f} of 4" in opened


def test_what_a_model_wrote_is_text_and_nothing_else(clicked):
    _, after, _, _ = clicked
    assert "<title>TraceLift evaluation" in after and "owned</title>" not in after
    assert "<img" not in after and "<b>bold" not in after


def test_the_page_needs_nothing_but_itself(done):
    text = (done / "report.html").read_text()
    assert not re.search(
        r"""(?:src|href)\s*=|url\(|@import|https?://(?!www\.w3\.org/2000/svg)""",
        re.sub(r'id="data">.*?</script>', "", text, flags=re.DOTALL),
    )
