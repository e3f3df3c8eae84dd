"""`python -m tracelift.groups`: build, validate, show, report on and judge TraceLift-Groups files.

Exit status: 0 done, 1 the data is broken (validate) or nothing could be built, 2 a wrong command line.

Left out on purpose: training on the groups, which is `train.py` with stage = "reward_model".
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from tracelift.errors import GroupError, RowsError
from tracelift.groups.build import Settings, build
from tracelift.groups.judge import PROMPT, Cache, JudgeEndpoint, agreement, agreement_text, judge_groups
from tracelift.groups.seeds import DEMOS
from tracelift.groups.show import show_group
from tracelift.reward_model.group_format import Group, iter_groups, read_groups, scan_groups, split_of, write_groups

_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except BrokenPipeError:  # `… show | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (GroupError, RowsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _build(arguments: argparse.Namespace) -> int:
    if arguments.seeds in DEMOS:
        arguments.domain, arguments.limit = DEMOS[arguments.seeds], arguments.limit or 1000
        arguments.source, total = arguments.source or arguments.seeds, arguments.limit
    else:
        with open(arguments.seeds, "rb") as file:
            total = sum(1 for line in itertools.islice(file, arguments.limit) if line.strip())
    values = {name: getattr(arguments, name) for name in _DEFAULTS}
    values["source"] = arguments.source or (
        _DEFAULTS["source"] if arguments.domain == "math" else Path(arguments.seeds).stem
    )
    with tqdm(total=total, unit="seed", disable=arguments.quiet) as bar:
        summary = build(
            arguments.seeds,
            arguments.out,
            Settings(**values),
            arguments.workers,
            arguments.limit,
            progress=lambda done: bar.update(done - bar.n),
        )
        bar.update(total - bar.n)
    groups, told = summary["groups"], sum(kind["count"] for kind in summary["alternatives"].values())
    counts = f"{summary['negatives']} flawed traces and {told} sound ones told otherwise"
    print(f"{groups['train']} training and {groups['dev']} dev groups with {counts}")
    dropped = dict(summary["dropped"])
    for name, note in (("broken_lines", "broken lines"), ("repeated_problems", "problems seen before")):
        dropped |= {note: count} if (count := summary[f"{name}_count"]) else {}
    for reason, count in dropped.items():
        print(f"  dropped {count}: {reason}")
    files = [str(Path(arguments.out) / name) for name in ("train.jsonl", "dev.jsonl", "summary.json", "dropped.jsonl")]
    print(f"written: {', '.join(files[:3])}" + (f"; each dropped seed with its reason: {files[3]}" if dropped else ""))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    failed = False
    for path in arguments.files:
        good, bad, kinds, told = 0, 0, Counter(), Counter()
        for number, item in iter_groups(path, arguments.min_negatives):
            if isinstance(item, str):
                bad += 1
                print(f"{path}, line {number}: {item}")
            else:
                good += 1
                kinds.update(c.negative_kind for c in item.negative_bank)
                told.update(c.positive_kind for c in item.alternatives)
        print(f"{path}: {good} good groups, {bad} broken lines, {sum(kinds.values())} flawed traces")
        for kind, count in sorted(kinds.items()):
            print(f"    {count:7d}  {kind}")
        for kind, count in sorted(told.items()):
            print(f"    {count:7d}  sound, told otherwise: {kind}")
        failed |= bad > 0 or good == 0
    return 1 if failed else 0


def _show(arguments: argparse.Namespace) -> int:
    good, _ = scan_groups(arguments.file, min_negatives=0)
    problem: str | None = arguments.problem
    wanted = [g for g in good if problem in (None, g.problem_id)][: 1 if problem is None else None]
    if not wanted:
        near = [g.problem_id for g in good if problem and problem in g.problem_id] or [g.problem_id for g in good]
        raise GroupError(f"{arguments.file} holds no good group {problem!r}; it has {', '.join(near[:3])}, …")
    color = sys.stdout.isatty() if arguments.color is None else arguments.color
    print(show_group(wanted[0], arguments.width, color, arguments.kind))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from tracelift.groups.shortcuts import markdown, shortcut_report

    if arguments.dev is not None:
        train, dev = read_groups(arguments.train), read_groups(arguments.dev)
    else:
        groups = read_groups(arguments.train)
        sides = {side: [g for g in groups if split_of(0, g.problem_id, 0.2) == side] for side in ("train", "dev")}
        train, dev = sides["train"], sides["dev"]
    rows = shortcut_report(train, dev)
    text = json.dumps([vars(r) for r in rows], indent=2) if arguments.json else markdown(rows)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")
    print(text)
    return 0


def _judge(arguments: argparse.Namespace) -> int:
    groups = read_groups(arguments.file)[: arguments.limit]
    key = os.environ.get(arguments.key_env)
    endpoint = JudgeEndpoint(arguments.url, arguments.model, key, tries=arguments.tries, timeout=arguments.timeout)
    prompt = Path(arguments.prompt).read_text(encoding="utf-8") if arguments.prompt else PROMPT
    cache = Cache(arguments.cache or f"{arguments.out}.cache")
    failures: list[str] = []
    judged: list[Group] = []
    total = sum(len(g.candidates) for g in groups)
    with tqdm(total=total, unit="trace", disable=arguments.quiet) as bar:
        options = (arguments.workers, prompt, arguments.replace, lambda: bar.update(1))
        for group, failed in judge_groups(groups, endpoint, cache, *options):
            judged.append(group)
            failures += failed
            if len(failures) > arguments.max_failures:
                raise GroupError(f"{len(failures)} traces could not be judged, the last: {failures[-1]}")
    write_groups(arguments.out, judged)
    print(f"{total - len(failures)} of {total} traces judged, {len(failures)} left unjudged; written: {arguments.out}")
    if len(failures) < total:
        print(agreement_text(agreement(judged)))
    return 0


def _generate(arguments: argparse.Namespace) -> int:
    import models
    from tracelift.config import Config
    from tracelift.groups.generate import generate
    from tracelift.rl.rollout import PlannerPrompt
    from tracelift.sampler import Sampler, SamplingParams

    groups = read_groups(arguments.file, min_negatives=0)[: arguments.limit]
    config = Config()
    config.planner.prompt, config.planner.chat, config.planner.prefill = (
        arguments.prompt,
        arguments.chat,
        arguments.prefill,
    )
    try:
        model, tokenizer = (
            models.load_pretrained(arguments.generate_with),
            models.load_tokenizer(arguments.generate_with),
        )
        prompt = PlannerPrompt(config, tokenizer)
        params = SamplingParams(
            arguments.samples,
            arguments.max_new_tokens,
            arguments.temperature,
            seed=arguments.seed,
            stop=tuple(arguments.stop or ()),
        )
        sampler = Sampler(model, tokenizer.eos_ids, tokenizer.pad_id, decode=tokenizer.decode)
        facts: Counter = Counter()
        with tqdm(total=len(groups), unit="group", disable=arguments.quiet) as bar:

            def extended() -> Iterator[Group]:
                options = (arguments.most, arguments.max_trace, lambda done: bar.update(done - bar.n))
                for group, counts in generate(groups, sampler, prompt, params, *options):
                    facts.update(counts)
                    yield group

            write_groups(arguments.out, extended())
    except (models.CheckpointError, ValueError) as error:
        raise GroupError(str(error)) from error
    print(f"{sum(facts.values())} traces written by {arguments.generate_with} for {len(groups)} groups")
    for reason, count in facts.most_common():
        print(f"  {count:6d}  {'kept: ' if reason.startswith('generated_') else 'dropped: '}{reason}")
    print(f"written: {arguments.out}")
    return 0


def _agree(arguments: argparse.Namespace) -> int:
    print(agreement_text(agreement(read_groups(arguments.file))))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tracelift.groups", description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "build", _build, "make groups from seed problems: train.jsonl, dev.jsonl, dropped.jsonl, summary.json"
    )
    sub.add_argument(
        "--seeds",
        required=True,
        help="JSONL with `question` and `answer` (GSM8K's layout) a line; code: with `problem`, `trace` and perhaps "
        "`solution`; or demo:math or demo:code, the problems of a demo world in the series that --seed names",
    )
    sub.add_argument("--domain", choices=["math", "code"], default="math", help="what the seeds are (default: math)")
    sub.add_argument("--out", required=True, metavar="DIR", help="folder for the files; made if missing")
    sub.add_argument(
        "--source", help="name of the data set, part of each problem_id (default: gsm8k; code: the file's name)"
    )
    sub.add_argument("--seed", type=int, default=_DEFAULTS["seed"], help="names the build and the split (default: 18)")
    sub.add_argument("--dev", type=float, default=_DEFAULTS["dev"], help="share of problems held out (default: 0.1)")
    sub.add_argument("--negatives", type=int, default=_DEFAULTS["negatives"], help="at most so many a group")
    sub.add_argument("--min-negatives", type=int, default=_DEFAULTS["min_negatives"], help="drop groups with fewer")
    sub.add_argument("--max-problem", type=int, default=_DEFAULTS["max_problem"], help="longest problem, characters")
    sub.add_argument("--max-trace", type=int, default=_DEFAULTS["max_trace"], help="longest trace, characters")
    sub.add_argument(
        "--alternatives",
        action=argparse.BooleanOptionalAction,
        default=_DEFAULTS["alternatives"],
        help="sound traces told otherwise beside the reference (default: where any are known to be sound)",
    )
    sub.add_argument("--workers", type=int, help="processes (default: one a core); the files do not depend on it")
    sub.add_argument("--limit", type=int, help="read only the first N seeds")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = command("validate", _validate, "check files line by line; each broken line with its number and reason")
    sub.add_argument("files", nargs="+", metavar="FILE")
    sub.add_argument("--min-negatives", type=int, default=_DEFAULTS["min_negatives"], help="least a group may hold")

    sub = command("show", _show, "print a group side by side with its flaws marked")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("--problem", metavar="ID", help="problem_id (default: the first group)")
    sub.add_argument("--kind", help="only flawed traces of this kind")
    sub.add_argument("--width", type=int, default=140)
    sub.add_argument("--color", action=argparse.BooleanOptionalAction, help="default: on a terminal")

    sub = command("report", _report, "how well length alone and a bag of words separate sound from flawed traces")
    sub.add_argument("--train", required=True, metavar="FILE", help="groups to fit on")
    sub.add_argument("--dev", metavar="FILE", help="groups to measure on (default: a fifth of --train, by hash)")
    sub.add_argument("--json", action="store_true", help="JSON instead of a Markdown table")
    sub.add_argument("--out", metavar="FILE", help="also write the report there")

    sub = command("judge", _judge, "score every trace by a model behind an OpenAI-compatible endpoint; resumable")
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("--url", required=True, help="base of the API, such as http://127.0.0.1:8000/v1")
    sub.add_argument("--model", required=True)
    sub.add_argument("--out", required=True, metavar="FILE", help="the groups with judgements")
    sub.add_argument("--cache", metavar="FILE", help="judgements as they come (default: OUT.cache)")
    sub.add_argument("--key-env", default="OPENAI_API_KEY", help="environment variable with the key, if one is needed")
    sub.add_argument("--prompt", metavar="FILE", help="own prompt; fields {problem} {reference} {reasoning} {keys} …")
    sub.add_argument("--replace", action="store_true", help="judgements become the labels; the rule's are kept beside")
    sub.add_argument("--limit", type=int, help="only the first N groups")
    sub.add_argument("--workers", type=int, default=4, help="calls under way at once (default: 4)")
    sub.add_argument("--tries", type=int, default=4, help="calls for one trace at most (default: 4)")
    sub.add_argument("--timeout", type=float, default=120.0, help="seconds a call may take (default: 120)")
    sub.add_argument("--max-failures", type=int, default=20, help="stop past so many unjudged traces (default: 20)")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = command(
        "generate",
        _generate,
        "add flawed traces that a model writes, where a calculation or the result is known to be wrong",
    )
    sub.add_argument("file", metavar="FILE")
    sub.add_argument(
        "--generate-with", required=True, metavar="MODEL", help="Hugging Face folder of the model that writes"
    )
    sub.add_argument("--out", required=True, metavar="FILE", help="the groups with the traces added")
    sub.add_argument(
        "--prompt", default="math", help="planner prompt: demo, math, or a text file with {problem} (default: math)"
    )
    sub.add_argument(
        "--chat", choices=["auto", "on", "off"], default="auto", help="wrap prompts in the tokenizer's chat template"
    )
    sub.add_argument("--prefill", default="", help="text that starts every reply, e.g. '<reasoning>'")
    sub.add_argument(
        "--stop", action="append", metavar="TEXT", help="text that ends a trace, e.g. '</reasoning>'; may be repeated"
    )
    sub.add_argument("--samples", type=int, default=4, help="traces written for a problem (default: 4)")
    sub.add_argument("--most", type=int, default=2, help="of them added to a group at most (default: 2)")
    sub.add_argument("--temperature", type=float, default=1.0)
    sub.add_argument("--max-new-tokens", type=int, default=256)
    sub.add_argument("--max-trace", type=int, default=_DEFAULTS["max_trace"], help="longest trace, characters")
    sub.add_argument("--seed", type=int, default=_DEFAULTS["seed"])
    sub.add_argument("--limit", type=int, help="only the first N groups")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = command("agree", _agree, "how far rule and judge labels agree, with confusion matrices")
    sub.add_argument("file", metavar="FILE", help="a file that `judge` wrote")
    return parser


if __name__ == "__main__":
    sys.exit(main())
