"""Run configuration: one small TOML file plus `--section.key value` overrides, typed, with no silent key.

The sections are plain dataclasses; the help text of a key stands beside it, so that `train.py --help` and the code can
not drift apart. An unknown key is refused with the nearest known one. Left out on purpose: inheritance between files,
interpolation, environment variables. A run is what its file and its command line say.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


class ConfigError(ValueError):
    """A configuration that cannot be meant: says file and key, and what to write instead."""


def opt(default: Any, help: str) -> Any:  # noqa: A002 (the word argparse taught everyone)
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class Run:
    stage: Literal["planner", "sft", "reward_model"] = opt("planner", "what to train")
    seed: int = opt(0, "names the run: every random draw is keyed by it")
    out: str = opt("", "run folder; empty means runs/<config file's name>")
    resume: bool = opt(False, "go on from the newest good checkpoint in the run folder")
    steps: int = opt(80, "optimizer rounds: one round is one global batch of problems (planner) or rows (sft, reward_model)")
    save_every: int = opt(10, "rounds between checkpoints; the last round always saves")
    keep: int = opt(2, "checkpoints kept in the run folder")
    log_tokens: bool = opt(True, "samples.jsonl also holds each trace's token ids and log-probs, for tracelift.explain")
    device: str = opt("auto", "auto, cpu, cuda or cuda:N; auto takes the GPU of this rank where there is one")
    dtype: Literal["float32", "bfloat16"] = opt("float32", "weights and activations of the trained model; log-probs are fp32 always")
    threads: int = opt(0, "CPU threads of this process; 0 shares the cores among the local ranks")


@dataclass
class Data:
    source: str = opt("demo:math", "demo:math or demo:code (endless), code:FILE (programs with tests), or a JSONL file with "
                      "problem/answer or GSM8K's question/answer fields")
    seed: int = opt(1000, "which series of demo problems training draws from")
    eval_source: str = opt("", "held-out problems; empty: the demo's own fresh series, or no evaluation for a file")
    eval_seed: int = opt(9000, "which series of demo problems evaluation draws from; never a training series")
    eval_problems: int = opt(400, "problems evaluated before and after training; 0 switches evaluation off")
    limit: int = opt(0, "use only the first so many rows of a file; 0 uses all")


@dataclass
class Planner:
    path: str = opt("assets/math/planner", "Hugging Face folder of the model to train")
    adapter: str = opt("", "PEFT LoRA folder to start from")
    prompt: str = opt("demo", "planner prompt: demo, math, code, or a text file with {problem}")
    chat: Literal["auto", "on", "off"] = opt("auto", "wrap prompts in the tokenizer's chat template; auto: where it has one")
    prefill: str = opt("", "text that starts every reply, e.g. '<reasoning>', for models that know no tags; it is not trained")
    stop: list[str] = opt([], "strings that end a trace beside the end token, e.g. '</reasoning>' for models that talk on")
    samples: int = opt(8, "traces sampled per problem (the paper's number of generations G)")
    max_new_tokens: int = opt(96, "longest trace, in tokens")
    temperature: float = opt(1.0, "sampling temperature; part of the score, so the policy gradient is that of this distribution")
    max_problem_chars: int = opt(2500, "longer problems are refused or skipped, never cut in the middle")


@dataclass
class Executor:
    path: str = opt("assets/math/executor", "Hugging Face folder of the frozen executor")
    device: str = opt("", "where a local executor lives: cpu, cuda (this rank's GPU) or cuda:N; empty: run.device")
    ranks: int = opt(0, "planner stage: the job's last so many ranks only hold executor and Reason RM and serve the others, which hold "
                     "neither")  # fmt: skip
    url: str = opt("", "OpenAI-compatible server (http://host:port) used instead of a local executor")
    model: str = opt("", "model name to ask that server for")
    key_env: str = opt("", "environment variable that holds that server's API key; empty: no key")
    prompt: str = opt("demo", "prompt with the trace: demo, demo-code, math, code, or a text file with {problem} and {trace}")
    baseline_prompt: str = opt("demo", "prompt without the trace: demo, demo-code, math, code, or a text file with {problem}")
    chat: Literal["auto", "on", "off"] = opt("auto", "wrap prompts in the tokenizer's chat template; auto: where it has one")
    repeats: int = opt(3, "K: runs per arm behind a success rate")
    uplift: Literal["sampled", "likelihood"] = opt(
        "sampled", "difference of success rates over K runs, or log p(reference | x, z) - log p(reference | x), exact, without runs "
        "(a local executor and reward.variant = 'corrected'; evaluation always samples)")
    likelihood_nats: float = opt(1.0, "likelihood uplift worth an uplift of 1; the reward clips at 1, likelihood_clipped counts how often")
    baseline_repeats: int = opt(0, "runs behind a problem's cached baseline; 0 means K. More runs cost little: once per problem")
    max_new_tokens: int = opt(8, "longest artifact, in tokens")
    temperature: float = opt(0.5, "executor sampling temperature")
    stop: list[str] = opt(["\n"], "strings that end an artifact, e.g. the next problem of a base model")
    max_trace_chars: int = opt(2000, "longer traces count as format failures")
    retries: int = opt(2, "times a failed executor call is tried again before its sample leaves the group")
    patience_s: float = opt(600.0, "seconds a run waits for a remote executor or Reason RM that is gone before it saves a checkpoint "
                            "and stops; 0: such samples become ERROR verdicts at once")  # fmt: skip
    max_error_share: float = opt(0.25, "past this share of ERROR verdicts in a round the run stops and says why")
    cache: str = opt("", "baseline cache file; empty means baseline_cache.RANK.jsonl in the run folder")
    memory_mb: int = opt(2048, "key-value memory the sampler may use, in MiB")


@dataclass
class RewardModelSection:
    path: str = opt("assets/math/reward_model", "Reason RM folder; empty: no RM, for reward modes that need none; oracle or oracle:NOISE: "
                    "the math demo's own rubric, with NOISE the share of traces judged by wrong labels (for studies)")  # fmt: skip
    url: str = opt("", "server that answers /score (python -m tracelift.serve, or the authors' schema) used instead of a local RM")
    key_env: str = opt("", "environment variable that holds that server's API key; empty: no key")
    timeout_s: float = opt(60.0, "seconds one call of that server may take")
    retries: int = opt(4, "times a failed call of that server is tried again before its samples leave their groups")
    device: str = opt("", "where it lives: cpu, cuda (this rank's GPU) or cuda:N; empty: run.device")
    max_tokens: int = opt(2048, "longest RM input in tokens; the problem is shortened before the reasoning ever is")


@dataclass
class Reward:
    mode: Literal["tracelift", "exec_only", "rm_only", "uplift_only", "product_only"] = opt(
        "tracelift", "math: 0.5 e2e + 0.5 R u, code: exec + code_weight R c; exec_only: e2e or exec; the rest are ablations: R, u, R u")
    variant: Literal["paper", "corrected"] = opt("corrected", "the paper's formulas to the digit, or with the released code's faults mended")
    format_reward: float = opt(-0.5, "reward of a trace without one complete <reasoning> block; the executor is not called")
    leak_penalty: float = opt(0.0, "subtracted where the trace states the final answer or holds code of the program")
    exec_style: Literal["binary", "pass_rate", "coderl", "hybrid"] = opt("hybrid", "how a program's run on the hidden tests is shaped")
    code_weight: float = opt(0.2, "weight of R c in the code reward (the paper: 0.2)")


@dataclass
class SandboxSection:
    cpu_seconds: float = opt(2.0, "CPU time of a program on one test")
    wall_seconds: float = opt(10.0, "wall-clock time of a program on one test, for programs that sleep or wait")
    memory_mb: int = opt(1024, "address space of a program, in MiB")
    workers: int = opt(0, "programs that run at once; 0 takes the number of cores")
    allow_weak_sandbox: bool = opt(False, "run programs even where the kernel gives no network or file isolation; logged loudly")


@dataclass
class Grpo:
    problems: int = opt(16, "problems per round, over all ranks")
    epochs: int = opt(1, "passes over one rollout")
    minibatches: int = opt(1, "optimizer updates per pass")
    importance: Literal["token", "sequence"] = opt("token", "ratio per token (GRPO) or one geometric-mean ratio per trace (GSPO)")
    aggregate: Literal["sequence", "token", "constant"] = opt(
        "token", "loss mean over traces of token means, over all tokens (DAPO), or over traces x max_new_tokens (Dr. GRPO)")
    advantage_scale: Literal["std", "none"] = opt("std", "divide a group's centred rewards by their deviation, or not")
    clip_low: float = opt(0.2, "ratio floor is 1 - clip_low")
    clip_high: float = opt(0.2, "ratio ceiling is 1 + clip_high")
    kl_coef: float = opt(0.0, "weight of the KL penalty to the starting planner; above 0 keeps a frozen copy")
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = opt("k3", "estimator on sampled tokens, or the exact sum over the vocabulary")
    entropy_coef: float = opt(0.0, "entropy bonus")


@dataclass
class Optim:
    lr: float = opt(2e-4, "peak learning rate (the paper: 1e-6 for full 7B, 5e-6 for LoRA)")
    warmup: int = opt(2, "rounds of linear warm-up")
    schedule: Literal["constant", "linear", "cosine"] = opt("constant", "what the rate does after warm-up")
    beta1: float = opt(0.9, "AdamW first-moment decay")
    beta2: float = opt(0.95, "AdamW second-moment decay")
    weight_decay: float = opt(0.0, "AdamW weight decay, on matrices only")
    max_grad_norm: float = opt(1.0, "global gradient norm is clipped to this")
    micro_tokens: int = opt(16384, "most tokens (padding included) in one forward and backward pass; changes memory, not gradients")
    checkpoint_activations: bool = opt(False, "keep only each block's input and compute the block again in the backward pass")
    state_dtype: Literal["float32", "bfloat16", "int8"] = opt("float32", "AdamW moments between steps: 8, 4 or 2 bytes a parameter")
    master_weights: bool = opt(True, "bfloat16 weights keep an fp32 master; without it they are rounded stochastically")
    on_nan: Literal["stop", "skip"] = opt("stop", "a round whose loss or gradient is not finite stops the run, or is skipped and counted")
    nan_batches: int = opt(4, "most such batches each rank keeps in RUN/nan for study (python -m tracelift.bad_batch RUN); 0 keeps none")


@dataclass
class Parallel:
    mode: Literal["none", "ddp", "fsdp"] = opt("none", "planner stage on several ranks: replicas that add up gradients in one message "
                                               "after the backward pass, or during it (ddp), or weights in shards (fsdp)")  # fmt: skip
    shard_head: bool = opt(False, "each rank trains V/ranks rows of the output head and scores all ranks' tokens on them: less memory, and "
                           "less traffic where a round trains fewer tokens than the vocabulary holds; for untied heads without LoRA")  # fmt: skip
    timeout_s: float = opt(1800.0, "seconds a rank waits for the others before the job ends; more than executor.patience_s")


@dataclass
class Lora:
    r: int = opt(0, "rank of LoRA adapters on the trained model; 0 trains every weight (the paper: 16 planner, 32 RM)")
    alpha: float = opt(32.0, "adapters are scaled by alpha / r")
    dropout: float = opt(0.0, "dropout before the adapters; never active while sampling or scoring")
    targets: list[str] = opt(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "adapted layers, by name")
    from_block: int = opt(0, "first transformer block with adapters; those below it are computed without a backward pass")


@dataclass
class Sft:
    train: str = opt("", "JSONL file of {prompt, completion} rows")
    dev: str = opt("", "the same, held out; empty: none")
    init: str = opt("", "Hugging Face folder to start from")
    shape: dict = opt({}, "instead of init: a fresh model's shape, e.g. {hidden_size=128, num_layers=3}")
    layers: int = opt(0, "deepen init to this many layers; the new ones start as the identity. 0 keeps its depth")
    tokenizer: str = opt("", "tokenizer folder; empty means that of init")
    batch_size: int = opt(128, "rows a round, over all ranks")
    eval_every: int = opt(100, "rounds between dev evaluations")
    save_dtype: Literal["float32", "bfloat16"] = opt("float32", "dtype of the exported weights")


@dataclass
class RmTraining:
    train: str = opt("", "TraceLift-Groups JSONL")
    dev: str = opt("", "held-out groups")
    init: str = opt("", "backbone: Hugging Face folder of a language model or of an earlier reward model")
    groups: int = opt(24, "groups a round, over all ranks")
    negatives: int = opt(4, "negatives drawn per group")
    rank_weight: float = opt(0.7, "weight of the pairwise ranking loss within a group")
    total_weight: float = opt(0.5, "weight of the Huber loss on the total head")
    negative_weight: float = opt(0.0, "weight of the optional ranking among negatives by gold total (off in the paper)")
    negative_margin: float = opt(0.15, "negatives whose gold totals differ by less are not ranked against each other")
    eval_every: int = opt(100, "rounds between dev evaluations; the best by group accuracy is kept")
    max_tokens: int = opt(2048, "longest input in tokens")
    save_dtype: Literal["float32", "bfloat16"] = opt("float32", "dtype of the exported weights")


@dataclass
class Eval:
    benchmarks: list[str] = opt(["demo:math"], "what to evaluate on: demo:math, demo:code, or FORMAT:FILE with FORMAT one of "
                                "gsm8k, svamp, math, humaneval, mbpp, code, tasks (problem/answer rows)")
    arms: list[str] = opt(["direct", "planner", "reference", "foreign"], "what the executor is given: no trace, the planner's, "
                          "the data's own, the planner's trace of another problem")
    modes: list[str] = opt(["greedy", "sampled"], "greedy: planner and executor at temperature 0; sampled: at their own")
    samples: int = opt(4, "traces per problem, each with one executor run, in sampled mode")
    k: list[int] = opt([1, 4], "the k of pass@k, each at most eval.samples")
    limit: int = opt(400, "problems per benchmark; 0 takes all (the demo: 1000)")
    out: str = opt("", "folder of records, results.json and report.html; empty: RUN/eval, or runs/eval-PLANNER")
    chunk: int = opt(64, "problems between two saves of the records")
    resamples: int = opt(2000, "bootstrap resamples of problems")
    max_error_share: float = opt(0.1, "past this share of unjudged executor runs the evaluation stops and says why")
    traces_shown: int = opt(4, "samples per problem and arm kept in the HTML report; 0 keeps all")
    groups: str = opt("", "eval.py reward-model: TraceLift-Groups JSONL to judge the Reason RM on")


@dataclass
class Config:
    run: Run = field(default_factory=Run)
    data: Data = field(default_factory=Data)
    planner: Planner = field(default_factory=Planner)
    executor: Executor = field(default_factory=Executor)
    reward_model: RewardModelSection = field(default_factory=RewardModelSection)
    reward: Reward = field(default_factory=Reward)
    sandbox: SandboxSection = field(default_factory=SandboxSection)
    grpo: Grpo = field(default_factory=Grpo)
    optim: Optim = field(default_factory=Optim)
    parallel: Parallel = field(default_factory=Parallel)
    lora: Lora = field(default_factory=Lora)
    sft: Sft = field(default_factory=Sft)
    rm: RmTraining = field(default_factory=RmTraining)
    eval: Eval = field(default_factory=Eval)


def load_config(path: str | Path | None, overrides: list[str] | tuple[str, ...] = (), base: Config | None = None,
                training: bool = True) -> Config:  # fmt: skip
    """Read a TOML file (None: all defaults), apply `--section.key value` overrides in order, and check the whole.

    `base` (changed in place) stands in for the defaults; `training = False` leaves out what only a training run needs.
    Raises ConfigError naming file and key on unknown keys, wrong types and values outside their range.
    """
    config = base or Config()
    if path is not None:
        try:
            table = tomllib.loads(Path(path).read_text())
        except FileNotFoundError:
            known = sorted(str(p) for p in Path("configs").glob("*.toml"))
            raise ConfigError(f"{path}: no such config file; there are: {', '.join(known) or 'none'}") from None
        except tomllib.TOMLDecodeError as e:
            raise ConfigError(f"{path}: not valid TOML: {e}") from None
        for section, values in table.items():
            if not isinstance(values, dict):
                raise ConfigError(f"{path}: '{section}' stands outside a section; write it under one of {_names(config)}")
            for key, value in values.items():
                _assign(config, section, key, value, where=str(path))
    words = list(overrides)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or "." not in word:
            raise ConfigError(f"command line: expected --section.key, got '{word}' (--help lists every key)")
        name, equals, text = word[2:].partition("=")
        section, _, key = name.partition(".")
        if not equals:
            bare = not words or words[0].startswith("--")
            text = None if bare else words.pop(0)
        _assign(config, section, key, text, where="command line")
    _check(config, str(path or "defaults"), training)
    return config


def config_of_run(folder: str | Path) -> Config:
    """The configuration a run was made with, from its config.json. Raises ConfigError where there is none to read."""
    path = Path(folder) / "config.json"
    try:
        sections = json.loads(path.read_text())["config"]
        config = Config()
        for section, values in sections.items():
            for key, value in values.items():
                _assign(config, section, key, value, where=str(path))
    except FileNotFoundError:
        raise ConfigError(f"{folder}: not a run folder: it has no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(f"{path}: not the record of a run: {e}") from None
    return config


def _names(obj: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(obj)]


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"; did you mean '{close[0]}'?" if close else ""


def _assign(config: Config, section: str, key: str, value: Any, where: str) -> None:
    if section not in _names(config):
        raise ConfigError(f"{where}: unknown section '{section}'{_nearest(section, _names(config))}")
    target = getattr(config, section)
    if key not in _names(target):
        elsewhere = [s for s in _names(config) if key in _names(getattr(config, s))]
        hint = f"; did you mean '{elsewhere[0]}.{key}'?" if elsewhere else _nearest(key, _names(target))
        raise ConfigError(f"{where}: unknown key '{section}.{key}'{hint}")
    kind = typing.get_type_hints(type(target))[key]
    if value is None:  # a bare --section.key
        if kind is not bool:
            raise ConfigError(f"{where}: --{section}.{key} needs a value ({_type_name(kind)})")
        value = True
    setattr(target, key, _convert(value, kind, f"{where}: {section}.{key}"))


def _convert(value: Any, kind: Any, where: str) -> Any:
    """A TOML value or a command-line word as `kind`; words are read as TOML where the type is not a plain string."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise ConfigError(f"{where}: '{value}' is none of {', '.join(map(str, choices))}")
        return value
    if kind is str:
        if not isinstance(value, str):
            raise ConfigError(f"{where}: expected text in quotes, got {value!r}")
        return value
    plain = typing.get_origin(kind) or kind
    if isinstance(value, str):
        if plain is list and not value.lstrip().startswith("["):  # a,b,c on the command line
            quote = json.dumps if typing.get_args(kind)[0] is str else str
            value = f"[{', '.join(quote(word.strip()) for word in value.split(','))}]"
        try:
            value = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            raise ConfigError(f"{where}: expected {_type_name(kind)}, got '{value}'") from None
    if plain is float and type(value) is int:
        value = float(value)
    if type(value) is not plain:
        raise ConfigError(f"{where}: expected {_type_name(kind)}, got {value!r}")
    if plain is list and not all(isinstance(v, typing.get_args(kind)[0]) for v in value):
        raise ConfigError(f"{where}: expected {_type_name(kind)}, got {value!r}")
    return value


def _type_name(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return " | ".join(map(str, typing.get_args(kind)))
    return kind.__name__ if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) else str(kind)


def _check(c: Config, where: str, training: bool) -> None:
    """What no single type can say."""
    positive = """run.steps run.keep run.save_every planner.samples planner.temperature planner.max_new_tokens executor.repeats
        executor.max_new_tokens executor.memory_mb executor.likelihood_nats reward_model.timeout_s grpo.problems grpo.epochs
        grpo.minibatches optim.lr optim.micro_tokens optim.max_grad_norm parallel.timeout_s sft.batch_size sft.eval_every
        rm.groups rm.negatives rm.eval_every eval.samples eval.chunk eval.resamples"""
    shares = "optim.beta1 optim.beta2 grpo.clip_low executor.max_error_share"
    least = """executor.ranks executor.patience_s executor.temperature executor.retries executor.baseline_repeats grpo.clip_high grpo.kl_coef
        data.eval_problems data.limit optim.warmup optim.nan_batches lora.from_block reward_model.retries"""
    for names, good, words in ((positive, lambda x: 0 < x < math.inf, "be above 0 and finite"),
                               (shares, lambda x: 0 <= x <= 1, "lie between 0 and 1"), (least, lambda x: x >= 0, "not be below 0")):  # fmt: skip
        for name in names.split():
            section, _, key = name.partition(".")
            if not good(value := getattr(getattr(c, section), key)):
                raise ConfigError(f"{where}: {name} must {words}, got {value}")
    if (c.executor.url or c.reward_model.url) and c.executor.patience_s >= c.parallel.timeout_s:
        raise ConfigError(f"{where}: executor.patience_s = {c.executor.patience_s:g} must be less than parallel.timeout_s = "
                          f"{c.parallel.timeout_s:g}, or the other ranks give up on one that waits")  # fmt: skip
    if training and c.run.stage != "planner" and c.parallel.mode != "none":
        raise ConfigError(f"{where}: parallel.mode = '{c.parallel.mode}' is for run.stage = 'planner'; '{c.run.stage}' trains "
                          "replicas on every rank (parallel.mode = 'none')")  # fmt: skip
    if training and c.executor.ranks and (c.executor.url or c.run.stage != "planner"):
        why = "executor.url names a server already" if c.executor.url else f"run.stage = '{c.run.stage}' asks no executor"
        raise ConfigError(f"{where}: executor.ranks = {c.executor.ranks}, but {why}; leave it 0")
    if training and c.run.stage == "planner":
        needs_rm = c.reward.mode in ("tracelift", "rm_only", "product_only")
        if needs_rm and not (c.reward_model.path or c.reward_model.url):
            raise ConfigError(f"{where}: reward.mode = '{c.reward.mode}' needs reward_model.path or reward_model.url")
        if c.executor.uplift == "likelihood" and c.reward.variant == "paper":
            raise ConfigError(f"{where}: executor.uplift = 'likelihood' needs reward.variant = 'corrected': the paper's uplift is a "
                              "difference of success rates")  # fmt: skip
        if c.executor.uplift == "likelihood" and c.executor.url:
            raise ConfigError(f"{where}: executor.uplift = 'likelihood' needs the log-probabilities of given texts, which a server at "
                              "executor.url does not give; use a local executor.path, or executor.uplift = 'sampled'")  # fmt: skip
        if c.planner.samples < 2:
            raise ConfigError(f"{where}: planner.samples must be at least 2: a group of one has no advantage")
        if c.grpo.minibatches > c.grpo.problems:
            raise ConfigError(f"{where}: grpo.minibatches = {c.grpo.minibatches} cannot each hold one of "
                              f"grpo.problems = {c.grpo.problems} problems")  # fmt: skip
        if c.data.eval_problems and c.data.source.startswith("demo:") and c.data.eval_seed == c.data.seed \
                and c.data.eval_source in ("", c.data.source):  # fmt: skip
            raise ConfigError(f"{where}: data.eval_seed = data.seed = {c.data.seed}: evaluation would meet problems of training")


def to_dict(config: Config) -> dict[str, dict[str, Any]]:
    return dataclasses.asdict(config)


USAGE = """usage: train.py [CONFIG.toml] [--section.key value ...] [--resume]
       torchrun --standalone --nproc_per_node=N train.py [CONFIG.toml] ...

Trains a planner for a frozen executor (run.stage = planner), or a model that this needs (sft, reward_model).

  train.py                                           the embedded math demo: the defaults below, a few minutes on two cores
  train.py configs/code-demo.toml                    the embedded code demo; configs/ holds more
  train.py --reward.mode exec_only --run.out runs/b  the demo by the baseline to beat
  train.py --resume                                  go on with a run that was stopped

The command line goes over the file, the file over these defaults. A list is written a,b,c, a switch by its name alone. The run
folder gets config.json, metrics.jsonl, samples.jsonl, checkpoints/, final/ (the model), summary.txt and curves.png.
Exit codes: 0 done, 1 bad configuration, data or model, 2 training could not go on, 143 stopped by SIGTERM after saving.
"""


def help_text(usage: str = USAGE) -> str:
    """Every key with its type, default and meaning, as `train.py --help` and `eval.py --help` print it."""
    lines = [usage]
    for section in dataclasses.fields(Config):
        cls = section.default_factory  # type: ignore[union-attr]
        hints = typing.get_type_hints(cls)
        lines.append(f"[{section.name}]")
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            default = f.default if f.default is not dataclasses.MISSING else f.default_factory()  # type: ignore[misc]
            lines.append(f"  --{section.name}.{f.name}  ({_type_name(hints[f.name])}, default {default!r})")
            lines.append(f"        {f.metadata['help']}")
        lines.append("")
    return "\n".join(lines)
