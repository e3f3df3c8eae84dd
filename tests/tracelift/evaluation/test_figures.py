"""Intervals over problems against simulation and hand-made cases; the report's plots and shares, on records made by hand."""

import json
import math
import random
import re
import statistics
from dataclasses import replace

import pytest

from support.evaluations import CHROMIUM, dom
from tracelift.build import load_benchmark
from tracelift.config import Config
from tracelift.evaluation.bench import Answer, Found, WrittenTrace
from tracelift.evaluation.figures.analysis import trace_figures
from tracelift.evaluation.report.page import render_page
from tracelift.reward_model.scorer import no_score
from tracelift.rl.rollout import TraceFacts
from tracelift.stats import wilson
from tracelift.stats.figures import FEW, average, ratio
from tracelift.verify.verdict import Verdict


def problem(rng, samples=8):
    """(wrong reasons, right answers) of one problem: some problems invite wrong reasons, and those are seldom right."""
    p, q = (0.9, 0.1) if rng.random() < 0.6 else (0.3, 0.8)
    right = [rng.random() < q for _ in range(samples) if rng.random() < p]
    return sum(right), len(right)


def test_the_interval_of_a_ratio_covers_what_it_should():
    """Samples of a problem are alike: counted one by one their interval misses the truth far too often."""
    rng = random.Random(0)
    many = [problem(rng) for _ in range(100_000)]
    truth = sum(y for y, _ in many) / sum(x for _, x in many)
    covered = naive = 0
    for _ in range(1000):
        parts = [part for part in (problem(rng) for _ in range(60)) if part[1]]
        figure = ratio(*zip(*parts, strict=True))
        hits, tries = sum(y for y, _ in parts), sum(x for _, x in parts)
        assert figure["value"] == pytest.approx(hits / tries) and figure["n"] == len(parts)
        covered += figure["low"] <= truth <= figure["high"]
        low, high = wilson(hits, tries)
        naive += low <= truth <= high
    assert 925 <= covered <= 970 and naive < 850


def test_a_ratio_of_equal_tries_is_the_mean_and_its_standard_error():
    rng = random.Random(1)
    values = [rng.random() for _ in range(40)]
    half = 1.959964 * statistics.stdev(values) / math.sqrt(40)
    expected = {
        "value": statistics.fmean(values),
        "low": statistics.fmean(values) - half,
        "high": statistics.fmean(values) + half,
        "n": 40,
        "se": statistics.stdev(values) / math.sqrt(40),
    }
    assert average(values, (0.0, 1.0)) == pytest.approx(expected)
    assert average([10 * v for v in values]) == pytest.approx(
        {k: v * 10 if k != "n" else v for k, v in expected.items()}
    )


@pytest.mark.parametrize(
    ("values", "hits"),
    [
        ([0.5] * 4, (2, 2)),
        ([0.5] * 30, (15, 15)),
        ([0.25, 0.5, 0.5], (1, 2)),
        ([1.0] * 7, (7, 7)),
        ([0.0], (0, 0)),
        ([0.3], (0, 1)),
    ],
)
def test_no_spread_and_few_problems_are_not_certainty(values, hits):
    """At least what as many whole problems would say, the next number of them below and above."""
    figure = average(values, (0.0, 1.0))
    assert figure["low"] <= wilson(hits[0], len(values))[0] and figure["high"] >= wilson(hits[1], len(values))[1]
    assert figure["low"] < figure["high"] and figure["low"] <= figure["value"] <= figure["high"]


def test_many_problems_with_spread_need_no_floor():
    values = [0.45, 0.55] * FEW
    assert average(values, (0.0, 1.0))["high"] - 0.5 < 0.05 < wilson(FEW, 2 * FEW)[1] - 0.5
    assert average([7.0])["low"] is None, "one value without bounds says nothing of its error"


def sample(valid, rm=None):
    return WrittenTrace("", "z", 1, "stop", TraceFacts(valid, False, False), rm)


def run(verdicts, given="z"):
    return [Answer(given, "1", 1, {"numeric": Verdict.PASS if v == "1" else Verdict.FAIL}) for v in verdicts]


def test_a_trace_and_an_answer_are_read_back_as_they_were_written():
    """The keys and their order are a file format: --reuse of older evaluations depends on them."""
    written = WrittenTrace("<reasoning>z</reasoning>", "z", 3, "length")
    line = '{"text": "<reasoning>z</reasoning>", "trace": "z", "tokens": 3, "finish_reason": "length"}'
    assert json.dumps(written.to_record()) == line and WrittenTrace.from_record(json.loads(line)) == written
    answer = Answer("z", "18.0", 2, {"numeric": Verdict.PASS, "strict": Verdict.FAIL}, "why")
    older = '{"artifact": "18.0", "tokens": 2, "verdicts": {"numeric": "PASS", "strict": "FAIL"}, "detail": "why"}'
    assert Answer.from_record(json.loads(older), "z") == answer, "a record of version 0.1"
    line = older[:-1] + ', "prompt_tokens": 7, "finish_reason": "stop"}'
    answer = replace(answer, prompt_tokens=7, finish_reason="stop")
    assert json.dumps(answer.to_record()) == line and Answer.from_record(json.loads(line), "z") == answer
    line = (
        '{"artifact": null, "tokens": 0, "verdicts": {"tests": "FAIL"}, '
        '"detail": "no complete <reasoning> block; the executor was not called", "prompt_tokens": 0, "finish_reason": ""}'
    )
    assert json.dumps(Answer.without_trace("program").to_record()) == line


def test_wrong_reasons_are_counted_over_right_samples_and_their_error_over_problems():
    """20 problems that are always right, on a valid trace in all samples or in none: 20 facts, not 120."""
    traces = [[sample(i % 2 == 0)] * 6 for i in range(20)]
    figure = trace_figures(traces, [run("111111")] * 20, "numeric", ())["wrong-reason rate"]
    half = 1.959964 * math.sqrt(0.25 / 19)
    error = math.sqrt(0.25 / 19)
    assert figure == pytest.approx({"value": 0.5, "low": 0.5 - half, "high": 0.5 + half, "n": 20, "se": error})
    uneven = [run("111111") if i % 2 else run("000001") for i in range(20)]
    assert trace_figures(traces, uneven, "numeric", ())["wrong-reason rate"]["value"] == pytest.approx(60 / 70)
    one = trace_figures([[sample(False)]] * 3, [run("1"), run("0"), run("1")], "numeric", ())["wrong-reason rate"]
    assert one == pytest.approx({"value": 1.0, "low": wilson(2, 2)[0], "high": 1.0, "n": 2, "se": 0.0}), (
        "greedy: Wilson's"
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with four of six samples shown: 001111 with direct 000000, and a planner whose name is long."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "p.jsonl").write_text(json.dumps({"problem_id": "p0", "problem": "x?", "answer": 1}) + "\n")
    benchmark = load_benchmark(f"tasks:{folder / 'p.jsonl'}", Config())
    traces = [[*[sample(True)] * 5, sample(False, no_score("out of memory"))]]
    arms = {"direct": {"sampled": [run("000000", "")]}, "planner": {"sampled": [run("001111")]}}
    found = Found({"planner": {"sampled": traces}}, arms)
    results = {"benchmarks": {}, "comparisons": []}
    text = render_page("t", results, [benchmark], {benchmark.name: found}, (), most_samples=4)
    return folder, text, json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_report_keeps_the_outcome_of_samples_it_does_not_show(page):
    _, _, data = page
    arms = data["benchmarks"][0]["problems"][0]["arms"]
    assert [s["verdict"] for s in arms["planner"]["sampled"]] == ["FAIL"] * 2 + ["PASS"] * 4
    assert arms["planner"]["sampled"][5] == {"verdict": "PASS", "valid": False, "left_out": True}
    assert sum("artifact" in s for s in arms["planner"]["sampled"]) == 4


def test_shares_and_filters_of_the_report_are_over_all_samples(page):
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page was not tried in a browser")
    folder, text, _ = page
    file = folder / "report.html"
    choose = "$('show').value = 'right answer, invalid trace'; draw(); document.querySelector('.row > button').click();"
    file.write_text(text.replace("</script>\n</body>", f"{choose}\n</script>\n</body>"))
    shown = dom(file)
    assert "planner 67%" in shown and "direct 0%" in shown, "only the sixth sample is right on an invalid trace"
    assert shown.count("4 of 6 samples shown") == 2 and "sample 4: PASS" in shown and "sample 5" not in shown
