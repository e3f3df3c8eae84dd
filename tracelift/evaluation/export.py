"""samples.jsonl of an evaluation → what other tools read.

    lm-eval     samples_TASK_DATE.jsonl, as lm-evaluation-harness writes with --log_samples: one line a problem, with doc,
                target, arguments, resps, filtered_resps, hashes and the metric
    evalplus    TASK.jsonl of {task_id, solution}, one line a sample, as evalplus.evaluate reads

One file for each benchmark, arm and mode that is asked for. A problem that was not judged is left out of lm-eval's files
and counted. Left out: lm-evaluation-harness' results_*.json, whose fields are about its own models and tasks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tracelift.files import json_line, read_rows, replaced_file

Row = dict[str, Any]
FORMATS = ("lm-eval", "evalplus")


class ExportError(ValueError):
    """What was asked for is not in the evaluation, or has no place in the format."""


def export(samples: Path, form: str, out: Path, arms: Sequence[str] = (), modes: Sequence[str] = ()) -> list[Path]:
    """Write the files of a format into `out` (made where it is missing) and return them.

    arms, modes: which, () for all. Raises ExportError where nothing of them is there, RowsError on a damaged file.
    """
    rows = [row for _, row in read_rows(samples)]
    if not all(isinstance(row, dict) and {"benchmark", "problem_id", "arm", "mode"} <= row.keys() for row in rows):
        raise ExportError(f"{samples}: not the samples.jsonl of an evaluation")
    runs: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in rows:
        if (not arms or row["arm"] in arms) and (not modes or row["mode"] in modes):
            run = runs.setdefault((row["benchmark"], row["arm"], row["mode"]), {})
            run.setdefault(row["problem_id"], []).append(row)
    if not runs:
        there = sorted({f"{row['arm']}, {row['mode']}" for row in rows})
        raise ExportError(f"{samples}: holds nothing of that arm and mode; it has {'; '.join(there)}")
    out.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now().strftime("%Y-%m-%dT%H-%M-%S.%f")
    written = []
    for (benchmark, arm, mode), problems in runs.items():
        task = re.sub(r"[^\w.-]+", "-", f"{benchmark}-{arm}-{mode}")
        if form == "lm-eval":
            path, lines = out / f"samples_{task}_{stamp}.jsonl", lm_eval_lines(problems)
        else:
            path, lines = out / f"{task}.jsonl", evalplus_lines(benchmark, problems)
        with replaced_file(path) as file:
            for line in lines:
                file.write(json_line(line))
        written.append(path)
    return written


def lm_eval_lines(problems: dict[str, list[Row]]) -> Iterator[Row]:
    """One line a problem. `exact_match` is the share of its samples that are right by the headline rule."""
    for number, (name, samples) in enumerate(problems.items()):
        if any(s["correct"] is None for s in samples):
            continue
        first = samples[0]
        prompts = list(dict.fromkeys(s["prompt"] or "" for s in samples))
        replies = [s["artifact"] or "" for s in samples]
        doc = {"problem_id": name, "problem": first["problem"], "gold": first["gold"]}
        yield {
            "doc_id": number,
            "doc": doc,
            "target": first["gold"],
            "arguments": {f"gen_args_{i}": {"arg_0": prompt, "arg_1": {}} for i, prompt in enumerate(prompts)},
            "resps": [replies],
            "filtered_resps": replies,
            "filter": "none",
            "metrics": ["exact_match"],
            "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
            "prompt_hash": _hash(prompts[0]),
            "target_hash": _hash(str(first["gold"])),
            "exact_match": sum(s["correct"] for s in samples) / len(samples),
        }


def evalplus_lines(benchmark: str, problems: dict[str, list[Row]]) -> Iterator[Row]:
    """One line a sample; a reply without a program is an empty solution, which fails. Raises ExportError for problems
    that are not HumanEval's or MBPP's."""
    kind = benchmark.partition(":")[0]
    named: dict[str, Callable[[str], str]] = {
        "humaneval": lambda name: name if "/" in name else f"HumanEval/{name}",
        "mbpp": lambda name: name if "/" in name else f"Mbpp/{name}",
    }
    if kind not in named:
        raise ExportError(f"{benchmark}: EvalPlus has the tests of humaneval and mbpp, and of nothing else")
    for name, samples in problems.items():
        for s in samples:
            yield {"task_id": named[kind](name), "solution": s["program"] or ""}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
