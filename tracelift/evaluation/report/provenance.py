"""How an evaluation was made, so that its results.json can be read and repeated without anything beside it.

Command, configuration and its hash, commit, versions and hardware; each model with its fingerprint; what was put to it:
templates, temperature, limits, stop strings, chat setting; each benchmark's problems and each arm's rendered prompts by hash,
with the first in full (all of them are in samples.jsonl). Left out: figures (tracelift/evaluation/figures/).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from tracelift.config import to_dict
from tracelift.evaluation.arms import executor_for
from tracelift.evaluation.bench import Bench, Found, Planner
from tracelift.evaluation.verdicts import RULES, VERSIONS
from tracelift.runs.record import hardware, source_commit, versions
from tracelift.tasks.benchmarks import Benchmark


def how_made(
    bench: Bench, planners: Sequence[Planner], benchmarks: Sequence[Benchmark], found: dict[str, Found]
) -> dict[str, Any]:
    """The part of results.json that is no figure."""
    config = bench.config
    resolved = to_dict(config)
    return {
        "command": sys.argv,
        "source": source_commit(),
        "versions": versions(),
        "hardware": hardware(),
        "seed": config.run.seed,
        "ranks": bench.world.size,
        "config": resolved,
        "config_sha256": sha256([json.dumps(resolved, sort_keys=True)]),
        "systems": {p.label: _planner(p) for p in planners},
        "executor": _executor(bench),
        "reward_model": {
            "path": config.reward_model.url or config.reward_model.path,
            "fingerprint": bench.scorer.fingerprint if bench.scorer is not None else None,
        },
        "problems": {b.name: _problems(b) for b in benchmarks},
        "prompts": {b.name: _prompts(bench, planners, b, found[b.name]) for b in benchmarks},
    }


def sha256(texts: Iterable[str]) -> str:
    """Of texts in their order, each told from the next."""
    digest = hashlib.sha256()
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def _planner(p: Planner) -> dict[str, Any]:
    c = p.config.planner
    return {
        "path": c.path,
        "adapter": c.adapter,
        "fingerprint": p.fingerprint,
        "template": p.prompt.template,
        "prefill": p.prompt.prefill,
        "chat": p.prompt.form.chat,
        "chat_options": dict(p.prompt.form.options),
        "temperature": c.temperature,
        "max_new_tokens": c.max_new_tokens,
        "stop": list(c.stop),
    }


def _executor(bench: Bench) -> dict[str, Any]:
    c, s = bench.config.executor, bench.executor.settings
    return {
        "path": c.url or c.path,
        "fingerprint": bench.executor.fingerprint,
        "template": s.template,
        "baseline_template": s.baseline_template,
        "chat": bench.executor.form.chat,
        "temperature": s.temperature,
        "max_new_tokens": s.max_new_tokens,
        "max_trace_chars": c.max_trace_chars,
        "stop": list(s.stop),
        "seed": s.seed,
    }


def _problems(b: Benchmark) -> dict[str, Any]:
    kind = b.problems[0].kind
    rows = (text for p in b.problems for text in (p.problem_id, p.task.problem, p.task.reference))
    return {
        "n": len(b.problems),
        "sha256": sha256(rows),
        "kind": kind,
        "rules": list(RULES[kind]),
        "rules_version": VERSIONS[kind],
    }


def _prompts(bench: Bench, planners: Sequence[Planner], b: Benchmark, found: Found) -> dict[str, Any]:
    """By planner, and by arm and mode: the hash of all rendered prompts, in the order of samples.jsonl, and the first."""
    out: dict[str, Any] = {"planner": {}, "executor": {}}
    for p in planners if found.traces else ():
        texts = [p.prompt.tokenizer.decode(p.prompt(problem.task), skip_special=False) for problem in b.problems]
        out["planner"][p.label] = {"sha256": sha256(texts), "first": texts[0]}
    for label, modes in found.arms.items():
        for mode, answers in modes.items():
            executor = executor_for(bench, b.problems[0].kind, mode)
            asked = [
                executor.prompt(problem.task, a.given or None)
                for problem, some in zip(b.problems, answers, strict=True)
                for a in some or ()
                if a.given is not None
            ]
            first = asked[0] if asked else None
            out["executor"].setdefault(label, {})[mode] = {"sha256": sha256(asked), "first": first, "n": len(asked)}
    return out
