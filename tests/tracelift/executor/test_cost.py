"""What an executor's work is said to have cost, against counts made from its prompts and texts alone."""

import dataclasses
import random

import pytest

import models
from tracelift.executor.backend import Reply
from tracelift.executor.cost import Cost, Counted
from tracelift.executor.executor import Executor, ExecutorSettings, RunItem
from tracelift.executor.likelihood import spellings
from tracelift.executor.local import LocalBackend
from tracelift.sampler.radix_tree import MIN_SAVED
from tracelift.tasks.prompts import BASELINE, EXECUTOR
from tracelift.worlds.tasks import DemoTasks

SETTINGS = ExecutorSettings(EXECUTOR["math"], BASELINE["math"], repeats=3, baseline_repeats=3, max_new_tokens=4)


@pytest.fixture(scope="module")
def demo():
    return models.load_pretrained("assets/math/executor"), models.load_tokenizer("assets/math/executor")


def beginnings(texts):
    """Positions that texts take where every common beginning is computed once."""
    return len({tuple(text[: i + 1]) for text in texts for i in range(len(text))})


def shared_once(computed, texts):
    """A beginning is shared where that saves at least MIN_SAVED tokens."""
    least = beginnings(texts)
    assert least <= computed <= least + MIN_SAVED * len(texts) and computed < sum(map(len, texts))


def test_costs_add_and_what_is_unknown_stays_unknown():
    rng = random.Random(0)
    some = [Cost(*(rng.randrange(100) for _ in range(5))) for _ in range(20)]
    total = sum(some, Cost())
    assert dataclasses.astuple(total) == tuple(map(sum, zip(*map(dataclasses.astuple, some), strict=True)))
    assert total - some[0] == sum(some[1:], Cost())
    assert total.positions == total.prompt + total.generated + total.scored
    part = total + Cost(1, None, 5, 0, None)
    assert (part.calls, part.prompt, part.computed, part.positions) == (total.calls + 1, None, None, None)
    assert (part - total).generated == 5 and (part - total).prompt is None


def test_sampled_runs_cost_their_prompts_their_tokens_and_shared_beginnings_once(demo):
    model, tokenizer = demo
    executor = Executor(LocalBackend(model, tokenizer), SETTINGS)
    tasks = DemoTasks(seed=77).first(3)
    items = [RunItem(t, t.truth.trace, (1, 2, 3)) for t in tasks] + [RunItem(t, None, (1, 2)) for t in tasks]
    runs = executor.run([*items, items[0]])  # the last is the first again: answered with it
    texts = [tokenizer.encode(executor.prompt(i.task, i.trace)) for i in items]
    made = [r.reply for some in runs[:-1] for r in some]
    assert [r.prompt_tokens for r in made] == [len(t) for t, i in zip(texts, items, strict=True) for _ in i.seeds]
    new = sum(r.tokens for r in made)
    read = sum(r.prompt_tokens for r in made)
    assert executor.cost == Cost(15, read, new, 0, executor.cost.computed)
    shared_once(executor.cost.computed - (new - len(made)), texts)  # a run's last token is never fed
    assert executor.variant(SETTINGS).cost == Cost(), "a variant counts its own"


def test_likelihoods_cost_what_they_read_and_score(demo):
    model, tokenizer = demo
    executor = Executor(LocalBackend(model, tokenizer), dataclasses.replace(SETTINGS, uplift="likelihood"))
    items = [(t, t.truth.trace) for t in DemoTasks(seed=78).first(3)]
    executor.evaluate(items, need_repeats=False, need_baseline=False)
    alone = executor.cost
    assert alone.scored == 0
    executor.evaluate(items)
    cost = executor.cost - alone - alone  # the end-to-end runs were made again
    prompts = [(executor.trace_prompt(*item), item[0]) for item in items]
    prompts += [(executor.baseline_prompt(t), t) for t, _ in items]
    answers = [
        (tokenizer.encode(p), {tuple(tokenizer.encode(s, add_special_tokens=False)) for s in spellings(t, ("\n",))})
        for p, t in prompts
    ]
    fed = [[*p, *path] for p, paths in answers for path in paths]
    assert (cost.calls, cost.generated) == (6, 0)
    assert cost.prompt == sum(len(p) for p, _ in answers)
    assert cost.scored == sum(len(path) + 1 for _, paths in answers for path in paths), "every token, and the end"
    shared_once(cost.computed, fed)


def test_of_a_server_what_it_does_not_say_is_not_known():
    class Server:
        fingerprint = "s"

        def __init__(self, *read):
            self.read = list(read)

        def complete(self, requests, progress=None):
            return [Reply("x", 2, None if i != "failed" else "down", None if i == "failed" else i) for i in self.read]

    for read, prompt in (((5, 7), 12), ((5, None), None), ((5, "failed"), 5)):
        counted = Counted()
        counted.complete(Server(*read), ["a", "b"])
        assert counted.cost == Cost(2, prompt, 4, 0, None)
