"""The frozen executor against a scripted backend: which runs are made, what they share, what is cached, what an error does."""

import dataclasses
import json

import pytest

import models
from tracelift.executor.backend import Reply
from tracelift.executor.baselines import Baseline, BaselineCache
from tracelift.executor.cost import Cost
from tracelift.executor.executor import Executor, ExecutorSettings, RunItem
from tracelift.executor.judge import Judgement, TaskJudge
from tracelift.executor.local import LocalBackend
from tracelift.files import read_log
from tracelift.tasks.prompts import BASELINE, EXECUTOR, PromptFormat
from tracelift.tasks.task import Task
from tracelift.verify.verdict import Verdict
from tracelift.worlds.tasks import DemoTasks

SETTINGS = ExecutorSettings(
    template="{problem}|{trace}|", baseline_template="{problem}|", repeats=3, baseline_repeats=3, seed=5
)
ONE = Task("p1", "one?", "1")
TWO = Task("p2", "two?", "2")


class Scripted:
    """Answers by a function of the request; remembers every call."""

    def __init__(self, answer, fingerprint="weights-a"):
        self.answer, self.fingerprint, self.calls = answer, fingerprint, []

    def complete(self, requests, progress=None):
        self.calls.append(list(requests))
        return [self.answer(r) for r in requests]

    @property
    def requests(self):
        return [r for call in self.calls for r in call]


def says(text):
    return lambda request: Reply(text, 2)


def by_arm(with_trace, without):
    return lambda r: Reply(with_trace if "|" in r.prompt.rstrip("|") else without, 2)


def test_k_runs_an_arm_one_end_to_end_and_shared_seeds():
    backend = Scripted(by_arm("1", "0"))
    outcome = Executor(backend, SETTINGS).evaluate([(ONE, "think")])[0]
    assert len(backend.calls) == 1, "one call to the backend for everything"
    with_trace = [r for r in backend.requests if r.prompt == "one?|think|"]
    without = [r for r in backend.requests if r.prompt == "one?|"]
    assert len(with_trace) == 4 and len(without) == 3
    seeds = [r.seed for r in with_trace]
    assert len(set(seeds)) == 4 and [r.seed for r in without] == seeds[1:], (
        "both arms meet the same random numbers; e2e its own"
    )
    assert all((r.max_tokens, r.temperature, r.stop) == (8, 0.5, ("\n",)) for r in backend.requests)
    assert (outcome.e2e, outcome.with_successes, outcome.base_successes) == (Verdict.PASS, 3, 0)
    assert outcome.uplift == 1.0 and outcome.error is None and outcome.runs == ("1", "1", "1")


def test_runs_are_matched_to_their_samples():
    """Each prompt passes on chosen seeds only, so a reply given to another sample or repeat would show."""
    probe = Scripted(says("0"))
    Executor(probe, SETTINGS).evaluate([(ONE, "a"), (TWO, "b")])
    seed = {
        t.problem_id: [r.seed for r in probe.requests if r.prompt.startswith(t.problem) and r.prompt.count("|") == 2]
        for t in (ONE, TWO)
    }
    passing = {
        ("one?|a|", seed["p1"][0]),
        ("one?|a|", seed["p1"][2]),
        ("two?|b|", seed["p2"][1]),
        ("two?|b|", seed["p2"][3]),
        ("two?|", seed["p2"][1]),
    }

    def answer(r):
        return Reply({"o": "1", "t": "2"}[r.prompt[0]] if (r.prompt, r.seed) in passing else "77", 2)

    one, two = Executor(Scripted(answer), SETTINGS).evaluate([(ONE, "a"), (TWO, "b")])
    assert (one.e2e, one.with_successes, one.base_successes) == (Verdict.PASS, 1, 0)
    assert (two.e2e, two.with_successes, two.base_successes) == (Verdict.FAIL, 2, 1)
    assert one.runs == ("77", "1", "77") and two.runs == ("2", "77", "2")


def test_equal_requests_are_asked_and_counted_once():
    backend = Scripted(by_arm("1", "0"))
    executor = Executor(backend, SETTINGS)
    a, b, c = executor.evaluate([(ONE, "same"), (ONE, "same"), (ONE, "other")])
    assert a == b == c
    assert len(backend.requests) == len(set(backend.requests)) == 4 + 4 + 3
    assert (executor.cost.calls, executor.cost.generated) == (11, 22)


def test_greedy_repeats_are_one_request():
    backend = Scripted(by_arm("1", "0"))
    outcome = Executor(backend, dataclasses.replace(SETTINGS, temperature=0.0)).evaluate([(ONE, "t")])[0]
    assert len(backend.requests) == 2
    assert (outcome.with_successes, outcome.repeats, outcome.base_successes) == (3, 3, 0)


@pytest.mark.parametrize(
    ("repeats", "baseline", "calls", "rates"),
    [
        (False, False, 1, (None, None, None)),
        (True, False, 1 + 3, (1.0, None, None)),
        (False, True, 1 + 3, (None, 0.0, None)),
        (True, True, 1 + 3 + 3, (1.0, 0.0, 1.0)),
    ],
)
def test_only_the_arms_that_are_asked_for_are_run_and_have_rates(repeats, baseline, calls, rates):
    backend = Scripted(by_arm("1", "0"))
    o = Executor(backend, SETTINGS).evaluate([(ONE, "t")], need_repeats=repeats, need_baseline=baseline)[0]
    assert len(backend.requests) == calls and o.e2e is Verdict.PASS and o.error is None
    assert (o.success_with, o.success_base, o.uplift) == rates and len(o.runs) == 3 * repeats


def test_runs_without_a_trace_and_with_one_come_back_in_the_order_of_their_seeds():
    backend = Scripted(lambda r: Reply(f"{r.seed}", 2))
    executor = Executor(backend, SETTINGS)
    runs = executor.run([RunItem(ONE, None, (9, 1)), RunItem(TWO, "t", ()), RunItem(TWO, "t", (2,))])
    assert [[(r.text, r.judgement.verdict) for r in some] for some in runs] == [
        [("9", Verdict.FAIL), ("1", Verdict.PASS)],
        [],
        [("2", Verdict.PASS)],
    ]
    assert [(r.prompt, r.seed) for r in backend.requests] == [("one?|", 9), ("one?|", 1), ("two?|t|", 2)]
    greedy = executor.variant(dataclasses.replace(SETTINGS, temperature=0.0))
    greedy.run([RunItem(ONE, None, (9, 1))])
    assert [r.seed for r in backend.requests[3:]] == [0] and (executor.cost.calls, greedy.cost.calls) == (3, 1)


class InBrackets(PromptFormat):
    def prompt(self, template, **fields):
        return f"<{super().prompt(template, **fields)}>"


def test_the_chat_wrapper_is_around_every_prompt():
    backend = Scripted(says("1"))
    Executor(backend, SETTINGS, form=InBrackets()).evaluate([(ONE, "t")])
    assert {r.prompt for r in backend.requests} == {"<one?|t|>", "<one?|>"}


def test_four_traces_of_a_problem_cost_a_quarter_of_the_prompts_of_the_released_code():
    """G = 4, K = 3: 28 prompts a problem there, 4·(1 + K) with a trace and 4·K baselines, each computed on its own."""
    model, tokenizer = models.load_pretrained("assets/math/executor"), models.load_tokenizer("assets/math/executor")
    backend = LocalBackend(model, tokenizer)
    templates = dict(template=EXECUTOR["math"], baseline_template=BASELINE["math"], max_new_tokens=2)
    executor = Executor(backend, dataclasses.replace(SETTINGS, **templates))
    theirs = 0
    items = []
    for task in DemoTasks(seed=4242).first(3):
        items += [(task, f"{task.truth.trace} Variant {i}.") for i in range(4)]
        theirs += sum(len(tokenizer.encode(executor.trace_prompt(*item))) * 4 for item in items[-4:])
        theirs += len(tokenizer.encode(executor.baseline_prompt(task))) * 4 * 3
    executor.evaluate(items)
    sampler = backend.sampler
    assert sampler.asked_tokens < theirs, "equal baselines are asked once"
    assert 0 < sampler.prefilled_tokens <= theirs / 4
    once = sampler.prefilled_tokens
    executor.evaluate(items)
    assert sampler.prefilled_tokens < 2 * once, "the second time baselines come from the cache"


# -- the baseline cache ----------------------------------------------------------------------------------------------


def baselines_asked(backend):
    return [r for r in backend.requests if r.prompt.count("|") == 1]


def test_a_baseline_is_measured_once_across_steps_and_restarts(tmp_path):
    path = tmp_path / "cache" / "b.jsonl"
    first = Scripted(by_arm("1", "1"))
    executor = Executor(first, SETTINGS, BaselineCache(path))
    before = executor.evaluate([(ONE, "a")])[0]
    executor.evaluate([(ONE, "b"), (TWO, "c")])
    assert len(baselines_asked(first)) == 2 * 3
    second = Scripted(by_arm("1", "an answer that would change the count"))
    after = Executor(second, SETTINGS, BaselineCache(path)).evaluate([(ONE, "a"), (TWO, "z")])
    assert baselines_asked(second) == [] and after[0] == before and after[1].base_successes == 0
    assert len(path.read_text().splitlines()) == 2


CHANGES = {
    "weights": (SETTINGS, ONE, "weights-b"),
    "prompt": (dataclasses.replace(SETTINGS, baseline_template="Please: {problem}|"), ONE, "weights-a"),
    "problem": (SETTINGS, dataclasses.replace(ONE, problem="uno?"), "weights-a"),
    "reference": (SETTINGS, dataclasses.replace(ONE, reference="3"), "weights-a"),
    "temperature": (dataclasses.replace(SETTINGS, temperature=0.7), ONE, "weights-a"),
    "tokens": (dataclasses.replace(SETTINGS, max_new_tokens=9), ONE, "weights-a"),
    "stop": (dataclasses.replace(SETTINGS, stop=(";",)), ONE, "weights-a"),
    "seed": (dataclasses.replace(SETTINGS, seed=6), ONE, "weights-a"),
    "repeats": (dataclasses.replace(SETTINGS, baseline_repeats=4), ONE, "weights-a"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_cache_key_changes_with_everything_a_baseline_depends_on(what):
    settings, task, weights = CHANGES[what]
    key = Executor(Scripted(says("1")), SETTINGS).baseline_key(ONE)
    assert Executor(Scripted(says("1"), weights), settings).baseline_key(task) != key
    assert Executor(Scripted(says("0")), SETTINGS).baseline_key(ONE) == key


def test_the_cache_key_does_not_change_with_what_a_baseline_does_not_see():
    key = Executor(Scripted(says("1")), SETTINGS).baseline_key(ONE)
    for settings in (
        dataclasses.replace(SETTINGS, template="other {problem}{trace}"),
        dataclasses.replace(SETTINGS, repeats=9),
    ):
        assert Executor(Scripted(says("1")), settings).baseline_key(ONE) == key


def test_two_problems_under_one_id_have_baselines_of_their_own():
    twin = Task("p1", "two?", "2")
    outcomes = Executor(Scripted(says("1")), SETTINGS).evaluate([(ONE, "t"), (twin, "t")])
    assert [o.base_successes for o in outcomes] == [3, 0]


@pytest.mark.parametrize("torn", ['{"key": "zz", "succ', '{"key"', "{"])
def test_a_line_cut_off_by_a_kill_is_dropped_and_the_next_one_is_whole(tmp_path, torn):
    path = tmp_path / "b.jsonl"
    cache = BaselineCache(path)
    cache.put({"a": Baseline(1, 3), "b": Baseline(2, 3)})
    whole = path.read_text()
    path.write_text(whole + torn)
    again = BaselineCache(path)
    assert len(again) == 2 and again.get("b") == Baseline(2, 3)
    again.put({"c": Baseline(0, 3)})
    assert [r["key"] for r in read_log(path)] == ["a", "b", "c"] and path.read_text().startswith(whole)


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text('{"key": "a", "successes": 1, "repeats": 3}')
    cache = BaselineCache(path)
    cache.put({"b": Baseline(0, 3)})
    assert len(BaselineCache(path)) == 2


def test_another_file_given_as_cache_is_refused_untouched(tmp_path):
    path = tmp_path / "b.jsonl"
    for text, said in [('{"problem": "x"}\n', "not a baseline cache"), ("no json\nat all\n", ":1: not a JSON line")]:
        path.write_text(text)
        with pytest.raises(ValueError, match=f"b.jsonl.*{said}"):
            BaselineCache(path)
        assert path.read_text() == text


def test_a_cache_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/b.jsonl: could not write the baseline cache"):
        BaselineCache(tmp_path / "file" / "b.jsonl").put({"a": Baseline(1, 3)})


# -- errors ----------------------------------------------------------------------------------------------------------


def test_a_request_that_fails_is_asked_once_and_not_judged():
    """Whether another attempt may help is its backend's to know (tracelift/executor/remote/client.py)."""
    judged = []

    def judge(items, in_full):
        judged.append((items, in_full))
        return TaskJudge()(items, in_full)

    items = [RunItem(ONE, "t", (7, 8)), RunItem(TWO, None, (8,), in_full=False)]
    executor = Executor(
        Scripted(lambda r: Reply("", 0, "busy") if r.seed == 7 else Reply("1", 2)), SETTINGS, judge=judge
    )
    (lost, kept), (other,) = executor.run(items)
    assert [len(call) for call in executor.backend.calls] == [3]
    assert judged == [([(ONE, "1"), (TWO, "1")], [True, False])], "all texts in one call, what gave none is not judged"
    assert (lost.text, lost.reply.tokens, lost.judgement) == ("", 0, Judgement(Verdict.ERROR, detail="busy"))
    assert [r.judgement.verdict.name for r in (kept, other)] == ["PASS", "FAIL"]
    assert executor.cost == Cost(3, None, 4, 0, None), "what is not said is not known"


def test_an_error_that_stays_is_the_sample_s_and_nobody_else_s():
    backend = Scripted(lambda r: Reply("", 0, "down") if "bad" in r.prompt else Reply("1", 2))
    bad, good = Executor(backend, SETTINGS).evaluate([(ONE, "bad"), (ONE, "good")])
    assert bad.error == "down" and bad.e2e is Verdict.ERROR
    assert good.error is None and good.with_successes == good.base_successes == 3
    assert len(backend.calls) == 1


def test_one_failed_repeat_is_an_error_not_a_wrong_answer():
    probe = Scripted(says("1"))
    Executor(probe, SETTINGS).evaluate([(ONE, "t")])
    doomed = [r for r in probe.requests if r.prompt == "one?|t|"][-1]
    outcome = Executor(Scripted(lambda r: Reply("", 0, "down") if r == doomed else Reply("1", 2)), SETTINGS).evaluate(
        [(ONE, "t")]
    )[0]
    assert outcome.e2e is Verdict.PASS and outcome.error == "down"


def test_a_failed_baseline_never_raises_uplift_and_is_not_cached(tmp_path):
    """The released code counts a failed baseline call as a failure of the baseline, which pays every trace."""
    path = tmp_path / "b.jsonl"
    down = Scripted(lambda r: Reply("", 0, "down") if r.prompt == "one?|" else Reply("1", 2))
    one, two = Executor(down, SETTINGS, BaselineCache(path)).evaluate([(ONE, "t"), (TWO, "t")])
    assert one.error == "down" and two.error is None
    assert len(path.read_text().splitlines()) == 1
    up = Scripted(says("1"))
    assert Executor(up, SETTINGS, BaselineCache(path)).evaluate([(ONE, "t")])[0].base_successes == 3
    assert len(baselines_asked(up)) == 3


def test_no_trace_solves_nothing_and_its_baseline_is_measured_like_any_other():
    backend = Scripted(lambda r: Reply("1" if r.prompt == "one?|" else "0", 2))
    executor = Executor(backend, SETTINGS)
    two, one, again = executor.without_traces([TWO, ONE, ONE])
    assert [r.prompt for r in backend.requests] == ["two?|"] * 3 + ["one?|"] * 3, "nothing with a trace, a problem once"
    assert (two.e2e, two.success_with, two.success_base, two.uplift) == (Verdict.FAIL, 0, 0, 0)
    assert (one.e2e, one.success_with, one.success_base, one.uplift) == (Verdict.FAIL, 0, 1, -1) and again == one
    assert executor.evaluate([(ONE, "think")])[0].success_base == 1
    assert len(backend.requests) == 6 + 4, "the same baseline, known by now"
    down = Executor(Scripted(lambda r: Reply("", 0, "down")), SETTINGS)
    assert down.without_traces([ONE])[0].error == "down" and len(down.cache) == 0


def test_nothing_to_do_asks_nothing():
    backend = Scripted(says("1"))
    assert Executor(backend, SETTINGS).evaluate([]) == [] and backend.calls == []


def test_the_cache_file_is_one_json_object_a_line(tmp_path):
    path = tmp_path / "b.jsonl"
    executor = Executor(Scripted(says("1")), SETTINGS, BaselineCache(path))
    executor.evaluate([(ONE, "t")])
    assert json.loads(path.read_text()) == {
        "key": executor.baseline_key(ONE),
        "successes": 3,
        "repeats": 3,
        "runs": [["1", "PASS"]] * 3,
    }
