"""The report: sentences that follow from figures, plots that hold 0 and all marks, a page that nothing can blank."""

import json
import math
import random
import re
from html import escape

import pytest

from support.evaluations import CHROMIUM, dom
from tracelift.evaluation.bench import Answer, Found, WrittenTrace
from tracelift.evaluation.figures.analysis import analyse
from tracelift.evaluation.report import charts
from tracelift.evaluation.report.findings import findings
from tracelift.evaluation.report.page import colour_of, html_table, render_page
from tracelift.reward_model.scorer import RMScore
from tracelift.rl.rollout import TraceFacts
from tracelift.tasks.benchmarks import Benchmark, Problem
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \u2028 @DATA@ é \ud800"
LONG = "planner " + "a-planner-with-a-very-long-name-" * 6


def written(rng, text):
    valid = rng.random() < 0.5
    fault = None if valid else rng.choice(["leak", "wrong_step"])
    score = RMScore(rng.random(), 0.5, 0.5, (2.0,) * 5)
    return WrittenTrace(text, text, 5, "stop", TraceFacts(valid, False, False, fault, 1), score)


def evaluation(planners=("one",), samples=2, problems=30, text="1 + 1 = 2. It is 3.", seed=0, better=0.7):
    """(results, benchmark, found) made by hand: direct is right in 20%, planners in `better`."""
    rng = random.Random(seed)
    listed = [Problem(Task(f"p{i}", f"Problem {i}: {text}", "3"), "number") for i in range(problems)]
    several = len(planners) > 1

    def answers(share, given):
        return [
            [
                Answer(
                    given, text, 2, {"numeric": Verdict.PASS if rng.random() < share else Verdict.FAIL}, "", 9, "stop"
                )
                for _ in range(samples)
            ]
            for _ in listed
        ]

    found = Found(arms={"direct": {"sampled": answers(0.2, "")}})
    for name in planners:
        found.arms[f"planner {name}" if several else "planner"] = {"sampled": answers(better, text)}
        found.traces[name] = {"sampled": [[written(rng, text) for _ in range(samples)] for _ in listed]}
    spent = {"calls": 60, "prompt": 540, "generated": 120, "computed": 400, "cpu_s": 1.5, "gpu_s": 0.0}
    found.arm_costs = {label: {"sampled": spent} for label in found.arms}
    found.trace_costs = {label: {"sampled": spent} for label in found.traces}
    benchmark = Benchmark("tasks:p", listed)
    results = {"systems": {name: {} for name in planners}, "command": ["eval.py", text], "run_comparisons": []}
    return results | analyse({"tasks:p": found}, {"tasks:p": "number"}, (1,), 200, ()), benchmark, {"tasks:p": found}


# -- sentences ---------------------------------------------------------------------------------------------------------


def test_a_difference_is_called_shown_by_its_p_alone():
    results, *_ = evaluation()
    ((_, said),) = findings(results)
    (c,) = results["comparisons"]
    assert c["p_holm"] < 0.05 and said[1].startswith(
        "More right answers with the planner's trace than with no trace: +"
    )
    c["difference"], c["low"], c["high"] = -0.1, -0.2, -0.01
    assert findings(results)[0][1][1].startswith(
        "Fewer right answers with the planner's trace than with no trace: -10.0"
    )
    c["p_holm"] = 0.051
    assert findings(results)[0][1][1].startswith(
        "No difference is shown between the planner's trace and no trace: -10.0"
    )


def test_the_sentences_hold_the_figures():
    results, *_ = evaluation()
    (bench,), ((heading, said),) = results["benchmarks"].values(), findings(results)
    assert heading == "tasks:p, sampled"
    for label in ("direct", "planner"):
        assert f"{100 * bench['arms'][label]['sampled']['accuracy']['value']:.1f}% [" in said[0]
    (traces,) = (t["sampled"] for t in bench["traces"].values())
    rate = traces["wrong-reason rate"]["value"]
    share = 100 * traces["wrong reasons: leak"]["value"] / rate
    text = " ".join(said)
    assert f"{100 * rate:.1f}% [" in text and f"leak {share:.0f}%" in text
    least = 100 * results["comparisons"][0]["least_detectable"]
    assert f"A true difference of {least:.1f} points would have been found four times in five" in text
    assert "400 positions computed in 60 calls with no trace" in text and said[-1].endswith("another training seed.")


def test_two_planners_are_named_and_their_duel_comes_first():
    results, *_ = evaluation(("one", "two"))
    ((_, said),) = findings(results)
    assert "one's trace and two's trace" in said[1] or "one's trace than with two's trace" in said[1]
    lost = results["benchmarks"]["tasks:p"]["arms"]["direct"]["sampled"]
    lost["unjudged"] = 4
    assert "Left out of every figure: 4 runs could not be judged." in findings(results)[0][1]


def test_sets_of_runs_have_their_own_sentence():
    results, *_ = evaluation()
    row = {"benchmark": "b", "mode": "greedy", "figure": "wrong_reason_rate", "runs_a": [0.1, 0.2], "runs_b": [0.5, 0.6],
           "difference": 0.4, "low": 0.1, "high": 0.7, "p": 1 / 3, "p_holm": 1 / 3, "least_p": 1 / 3}  # fmt: skip
    heading, said = findings(results | {"run_comparisons": [row]})[-1]
    assert heading == "The run as the unit"
    assert said == [
        "b, greedy, 2 runs against 2: wrong reason rate differs by +40.0 points [+10.0, +70.0], exact p = 0.33; so many "
        "runs cannot show less than 0.33: not shown."
    ]


def test_nothing_to_say_of_nothing():
    assert findings({"benchmarks": {}, "comparisons": [], "systems": {}}) == []


# -- plots -------------------------------------------------------------------------------------------------------------


def test_every_axis_holds_zero_and_all_values_at_round_steps():
    rng = random.Random(1)
    for _ in range(500):
        scale = 10 ** rng.uniform(-3, 3)
        values = [0.0, *(rng.uniform(-1, 1) * scale for _ in range(rng.randrange(1, 6)))]
        ticks = charts.axis(values)
        assert (
            0.0 in ticks and ticks[0] <= min(values) + 1e-9 and max(values) <= ticks[-1] + 1e-9 and 2 <= len(ticks) <= 8
        )
        step = ticks[1] - ticks[0]
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6) in (1, 2, 5)
    assert charts.axis([0.0, 1.0]) == [0, 0.2, 0.4, 0.6, 0.8, 1]


def test_marks_lie_on_the_track():
    rows = [charts.Row("a", 0.5, 0.4, 0.6), charts.Row("b", -7.0, -9.5, 2.0), charts.Row("nan", math.nan, 0.0, 1.0)]
    text = charts.intervals(rows, -5.0, 5.0)
    spans = [(float(a), float(b)) for a, b in re.findall(r"left:([-\d.]+)%;width:([-\d.]+)%", text)]
    dots = [float(x) for x in re.findall(r'class="dot other" style="left:([-\d.]+)%', text)]
    assert len(spans) == len(dots) == 2, "what is no number is not drawn"
    assert all(0 <= a <= d <= a + b <= 100 for (a, b), d in zip(spans, dots, strict=True))
    assert 'class="zero"' in text and charts.intervals([]) == ""


def test_a_stacked_bar_adds_up_and_a_histogram_counts():
    text = charts.stacked([("one", [("x", 0.2), ("y", 0.1)]), ("two", [])])
    left = [float(x) for x in re.findall(r'class="bar part\d" style="left:([\d.]+)%', text)]
    width = [float(x) for x in re.findall(r'class="bar part\d" style="left:[\d.]+%;width:([\d.]+)%', text)]
    assert left[0] == 0 and left[1] == pytest.approx(width[0]) and width[0] == pytest.approx(2 * width[1], abs=0.02)
    assert ">0.300<" in text and ">0.000<" in text
    text = charts.histogram([("right", "good", [0.05, 0.95, 1.0]), ("wrong", "bad", [])])
    assert 'title="right, 0.9 to 1.0: 66.7%"' in text and "right (3)" in text and "wrong (0)" in text


def test_each_planner_has_a_colour():
    labels = ["direct", "planner a", "planner b", "foreign a", "foreign b", "reference"]
    assert [colour_of(x, labels) for x in labels] == [
        "direct",
        "planner",
        "planner2",
        "foreign",
        "foreign2",
        "reference",
    ]


# -- the page ----------------------------------------------------------------------------------------------------------


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


def test_text_of_models_stays_text():
    results, benchmark, found = evaluation(text=HOSTILE)
    page = render_page(HOSTILE, results, [benchmark], found, ("d",) * 5)
    assert page.count("<script") == 2 and "<img" not in page and 'onerror="' not in page.replace('onerror=\\"', "")
    data = data_of(page)
    assert data["benchmarks"][0]["problems"][0]["arms"]["planner"]["sampled"][0]["artifact"] == HOSTILE.replace(
        "\ud800", "?"
    )
    page.encode()  # halves of surrogate pairs would not go into a file


def test_numbers_that_are_none_do_not_blank_the_page():
    results, benchmark, found = evaluation()
    traces = found["tasks:p"].traces["one"]["sampled"]
    traces[0][0] = WrittenTrace("z", "z", 1, "stop", TraceFacts(), RMScore(math.nan, math.inf, 0.5, (math.nan,) * 5))
    results["hardware"] = {"memory_gib": math.nan}
    page = render_page("t", results, [benchmark], found, ("d",) * 5)
    assert (
        "NaN" not in page
        and data_of(page)["benchmarks"][0]["problems"][0]["arms"]["planner"]["sampled"][0]["rm"]["total"] is None
    )


def test_tables_are_tables():
    assert html_table([["a", "b"], ["<x>", "1"]]).count("<td>1</td>") == 1
    results, benchmark, found = evaluation()
    page = render_page("t", results, [benchmark], found, ())
    assert page.count("<table>") == 4 and '<pre class="table"' not in page


WATCH = """<script>
window.faults = [];
addEventListener("error", e => faults.push(e.message));
addEventListener("securitypolicyviolation", e => faults.push(e.violatedDirective));
</script>"""


@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser_nothing_fails_and_nothing_is_wider_than_the_page(tmp_path, width):
    """Hostile texts and long names, every problem opened, the faulty sentence marked; measured in a frame of that width."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page was not tried in a browser")
    results, benchmark, found = evaluation((LONG[8:], "two"), text=f"One. Two {HOSTILE}", problems=8)
    page = render_page(HOSTILE, results, [benchmark], found, ("dimension",) * 5).replace(
        "<title>", f"{WATCH}<title>", 1
    )
    check = """
      const w = frame.contentWindow, d = w.document;
      for (const b of d.querySelectorAll(".row > button")) b.click();
      const said = {faults: w.faults, title: w.document.title.slice(0, 9), wide: d.documentElement.scrollWidth,
                    open: d.querySelectorAll(".open").length, marks: d.querySelectorAll("mark").length};
      document.title = JSON.stringify(said);"""
    wrapper = tmp_path / f"frame-{width}.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><title>-</title><iframe id="frame" style="width:{width}px;height:900px;border:0" '
        f'srcdoc="{escape(page)}"></iframe><script>frame.onload = () => {{{check}}}</script></html>'
    )
    said = json.loads(re.search(r"<title>(\{.*?\})</title>", dom(wrapper))[1].replace("&lt;", "<").replace("&gt;", ">"))
    assert said["faults"] == [] and said["open"] == 8 and said["title"] != "owned" and said["marks"] > 0
    assert said["wide"] <= width
