"""Requests begun while the planner samples: sent before they are collected, answered as if they had not been."""

import threading

import pytest

import models
from support.tiny_job import planner_arguments
from tracelift.build import build_sampler
from tracelift.config import load_config
from tracelift.executor.backend import CompletionRequest, Reply
from tracelift.executor.remote.prefetch import PrefetchingBackend
from tracelift.rl.rollout import PlannerPrompt, sample_traces
from tracelift.sampler import SamplingParams
from tracelift.tasks.task import Task

A, B, C, D = (CompletionRequest(name, 4, seed=i) for i, name in enumerate("abcd"))


class Gate:
    """A backend that answers each call when it is told to, and notes the calls it got."""

    fingerprint = "gate"

    def __init__(self, failing: BaseException | None = None) -> None:
        self.calls, self.asked, self.open, self.failing = [], threading.Semaphore(0), threading.Semaphore(0), failing

    def complete(self, requests, progress=None):
        assert len(set(requests)) == len(requests) > 0
        self.calls.append(list(requests))
        self.asked.release()
        assert self.open.acquire(timeout=60)
        if self.failing:
            raise self.failing
        return [Reply(f"{r.prompt}{len(self.calls)}", 1) for r in requests]


def test_what_is_begun_is_sent_at_once_and_collected_without_a_second_call():
    gate = Gate()
    ahead = PrefetchingBackend(gate)
    ahead.begin([A, B, A])
    assert gate.asked.acquire(timeout=60) and gate.calls == [[A, B]], "on its way while the caller does something else"
    ahead.begin([B, C])  # gathers behind the first call
    assert len(gate.calls) == 1
    for _ in range(3):
        gate.open.release()
    assert [r.text for r in ahead.complete([C, A, D, A, B])] == ["c2", "a1", "d3", "a1", "b1"]
    assert gate.calls == [[A, B], [C], [D]]
    gate.open.release()
    assert [r.text for r in ahead.complete([A])] == ["a4"], "a reply is handed out once: a retry asks again"


def test_a_failure_ahead_is_raised_where_it_is_collected_and_only_once():
    gate = Gate(failing=ConnectionError("gone"))
    ahead = PrefetchingBackend(gate)
    for _ in range(3):
        gate.open.release()
    ahead.begin([A])
    assert gate.asked.acquire(timeout=60)
    with pytest.raises(ConnectionError, match="gone"):
        ahead.complete([A, B])
    gate.failing = None
    assert [r.text for r in ahead.complete([A, B])] == ["a2", "b2"] and gate.calls == [[A], [A, B]]


def test_traces_are_told_as_they_are_written(job):
    """Short traces leave the batch first; each is told once, and all that the samples hold are."""
    config = load_config(None, [*planner_arguments(job, job / "unused")])
    tokenizer = models.load_tokenizer(config.planner.path)
    sampler = build_sampler(models.load_pretrained(config.planner.path), tokenizer, config)
    sampler.max_batch = 2  # so that early ones end long before late ones begin
    tasks, told, calls = [Task(f"p{i}", f"What is {i} + 2?", str(i + 2)) for i in range(3)], [], []
    forward = sampler.model.forward
    sampler.model.forward = lambda *a, **k: (calls.append(len(told)), forward(*a, **k))[1]
    groups = sample_traces(
        sampler,
        PlannerPrompt(config, tokenizer),
        tasks,
        SamplingParams(n=4, max_new_tokens=24, seed=1),
        [(0, i) for i in range(3)],
        200,
        lambda task, trace: told.append((task.problem_id, trace)),
    )
    assert (
        sorted(told) == sorted((s.task.problem_id, s.trace) for g in groups for s in g if s.trace is not None) and told
    )
    assert any(0 < n < len(told) for n in calls), "some were told while the model was still at work"
