"""Every key of a planner run, section by section, and `Config`, which holds all sections.

`train.py --help` prints these texts, so that the help and the code cannot drift apart. Left out: the keys of the other
stages and of eval.py (stages.py), how values are read (load.py) and checked together (check.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tracelift.config.key import (
    ABOVE_0,
    DECAY,
    FROM_0,
    FROM_1,
    NATS,
    PATIENCE,
    RATE,
    SECONDS,
    SEED,
    SHARE,
    SIGNED,
    THREADS,
    WARM,
    WARM_OR_GREEDY,
    WEIGHT,
    opt,
)
from tracelift.config.stages import EvalConfig, RmTrainingConfig, SftConfig


@dataclass
class RunConfig:
    stage: Literal["planner", "sft", "reward_model"] = opt("planner", "what to train")
    seed: int = opt(0, "names the run: every random draw is keyed by it", SEED)
    out: str = opt("", "run folder; empty means runs/<config file's name>", later="yes")
    resume: bool = opt(False, "go on from the newest good checkpoint in the run folder", later="yes")
    steps: int = opt(
        80,
        "optimizer rounds, each one global batch of problems (planner) or rows (sft, reward_model)",
        FROM_1,
        later="grows",
    )
    save_every: int = opt(10, "rounds between checkpoints; the last round always saves", FROM_1, later="yes")
    keep: int = opt(2, "checkpoints kept in the run folder", FROM_1, later="yes")
    log_tokens: bool = opt(
        True, "samples.jsonl also holds each trace's token ids and log-probs, for tracelift.explain", later="yes"
    )
    device: str = opt(
        "auto", "auto, cpu, cuda or cuda:N; auto takes the GPU of this rank where there is one", later="yes"
    )
    dtype: Literal["float32", "bfloat16"] = opt(
        "float32", "weights and activations of the trained model; log-probs are fp32 always"
    )
    stop_s: float = opt(
        300.0,
        "seconds a run that was asked to stop may take to finish its round and save; then it ends as it is",
        SECONDS,
        later="yes",
    )
    threads: int = opt(0, "CPU threads of this process; 0 shares the cores among the local ranks", THREADS, later="yes")


@dataclass
class DataConfig:
    source: str = opt(
        "demo:math",
        "demo:math or demo:code (endless), code:FILE (programs with tests), or a file with problem and answer fields: "
        ".jsonl, .json, .gz, .parquet, or a Hugging Face datasets folder",
    )
    verifier: Literal["numeric", "latex"] = opt(
        "numeric", "who judges the answers of a file: exact numbers, words and choices, or LaTeX by math-verify"
    )
    seed: int = opt(1000, "which series of demo problems training draws from", SEED)
    eval_source: str = opt(
        "", "held-out problems; empty: the demo's own fresh series, or no evaluation for a file", later="yes"
    )
    eval_seed: int = opt(
        9000, "which series of demo problems evaluation draws from, never a training one", FROM_0, later="yes"
    )
    eval_problems: int = opt(
        400, "problems evaluated before and after training; 0 switches evaluation off", FROM_0, later="yes"
    )
    limit: int = opt(0, "use only the first so many rows of a file; 0 uses all", FROM_0)


@dataclass
class PlannerConfig:
    path: str = opt("assets/math/planner", "Hugging Face folder of the model to train")
    adapter: str = opt("", "PEFT LoRA folder to start from")
    prompt: str = opt("demo", "planner prompt: demo, math, code, or a text file with {problem}")
    chat: Literal["auto", "on", "off"] = opt("auto", "use the tokenizer's chat template; auto: where it has one")
    chat_options: dict[str, Any] = opt({}, "variables of that template, as { enable_thinking = false }")
    prefill: str = opt(
        "", "text that starts every reply, e.g. '<reasoning>', for models that know no tags; it is not trained"
    )
    stop: list[str] = opt(
        [], "strings that end a trace beside the end token, e.g. '</reasoning>' for models that talk on"
    )
    samples: int = opt(8, "traces sampled per problem (the paper's number of generations G)", FROM_1)
    max_new_tokens: int = opt(96, "longest trace, in tokens", FROM_1)
    temperature: float = opt(
        1.0, "sampling temperature; part of the score, so the policy gradient is that of this distribution", WARM
    )
    max_problem_chars: int = opt(2500, "longer problems are refused or skipped, never cut in the middle", FROM_0)


@dataclass
class ExecutorConfig:
    path: str = opt("assets/math/executor", "Hugging Face folder of the frozen executor")
    device: str = opt(
        "", "where a local executor lives: cpu, cuda (this rank's GPU) or cuda:N; empty: run.device", later="yes"
    )
    url: str = opt("", "OpenAI-compatible server (http://host:port) used instead of a local executor", later="moves")
    model: str = opt("", "model name to ask that server for; empty: the only one it lists")
    key_env: str = opt("", "environment variable that holds that server's API key; empty: no key", later="yes")
    prompt: str = opt(
        "demo",
        "prompt with the trace: demo, demo-code, math (asks for a number; on eval.py's math:FILE for an "
        "expression), code, or a text file with {problem} and {trace}",
    )
    baseline_prompt: str = opt(
        "demo", "prompt without the trace: demo, demo-code, math, code, or a text file with {problem}"
    )
    chat: Literal["auto", "on", "off"] = opt("auto", "use the tokenizer's chat template; auto: where it has one")
    chat_options: dict[str, Any] = opt({}, "variables of that template, as { enable_thinking = false }")
    repeats: int = opt(3, "K: runs per arm behind a success rate", FROM_1)
    uplift: Literal["sampled", "likelihood"] = opt(
        "sampled",
        "difference of success rates over K runs, or log p(reference | x, z) - log p(reference | x), exact, without runs "
        "(a local executor and reward.variant = 'corrected'; evaluation always samples)",
    )
    likelihood_nats: float = opt(
        1.0, "likelihood uplift worth an uplift of 1; the reward clips at 1, likelihood_clipped counts how often", NATS
    )
    baseline_repeats: int = opt(
        0, "runs behind a problem's cached baseline; 0 means K. More runs cost little: once per problem", FROM_0
    )
    max_new_tokens: int = opt(8, "longest artifact, in tokens", FROM_1)
    temperature: float = opt(1.0, "executor sampling temperature; 0 is greedy", WARM_OR_GREEDY)
    stop: list[str] = opt(["\n"], "strings that end an artifact, e.g. the next problem of a base model")
    max_trace_chars: int = opt(2000, "longer traces count as format failures", FROM_1)
    retries: int = opt(
        4, "times a failed call of that server is tried again before its sample leaves the group", FROM_0, later="yes"
    )
    patience_s: float = opt(
        600.0,
        "seconds a run waits for a remote executor or Reason RM that is gone before it saves a checkpoint "
        "and stops; 0: such samples become ERROR verdicts at once",
        PATIENCE,
        later="yes",
    )
    max_error_share: float = opt(
        0.25,
        "past this share of ERROR verdicts among a round's traces that reached the executor the run stops and says why",
        SHARE,
        later="yes",
    )
    cache: str = opt("", "baseline cache file; empty means baseline_cache.RANK.jsonl in the run folder", later="yes")
    memory_mb: int = opt(2048, "key-value memory the sampler may use, in MiB", FROM_1, later="yes")


@dataclass
class RewardModelConfig:
    path: str = opt(
        "assets/math/reward_model",
        "Reason RM folder; empty: no RM, for reward modes that need none, which leave the default unloaded too (one given by "
        "name is loaded, and its scores shown); oracle, oracle:NOISE "
        "or oracle:blind-FAULT: the math demo's own rubric, with NOISE the share of traces judged by wrong labels, or taking one "
        "kind of fault for sound (for studies)",
    )
    url: str = opt(
        "",
        "server that answers /score (python -m tracelift.serve, or the authors' schema) used instead of a local RM",
        later="moves",
    )
    key_env: str = opt("", "environment variable that holds that server's API key; empty: no key", later="yes")
    timeout_s: float = opt(60.0, "seconds one call of that server may take", SECONDS, later="yes")
    retries: int = opt(4, "times a failed call of that server is tried again", FROM_0, later="yes")
    device: str = opt("", "where it lives: cpu, cuda (this rank's GPU) or cuda:N; empty: run.device", later="yes")
    max_tokens: int = opt(
        2048, "longest RM input in tokens; the problem is shortened before the reasoning ever is", FROM_1
    )


@dataclass
class RewardFormulaConfig:
    mode: Literal["tracelift", "exec_only", "rm_only", "uplift_only", "product_only", "gated", "additive", "graded"] = (
        opt(
            "tracelift",
            "math: 0.5 e2e + 0.5 R u, code: exec + code_weight R c; exec_only: e2e or exec; ablations R, u, R u; gated R e2e, "
            "additive 0.5 e2e + 0.5 R, graded R success_with",
        )
    )
    variant: Literal["paper", "corrected"] = opt(
        "corrected", "the paper's formulas to the digit, or with the released code's faults mended"
    )
    runs: Literal["apart", "pooled"] = opt(
        "apart", "e2e and exec by a run of their own, as in the paper, or all 1 + K runs one sample behind all rates"
    )
    format_reward: float = opt(-0.5, "of a trace without one complete <reasoning> block, which is not executed", SIGNED)
    leak_penalty: float = opt(0.0, "subtracted where the trace states the answer or holds code of the program", WEIGHT)
    exec_style: Literal["binary", "pass_rate", "coderl", "hybrid"] = opt(
        "hybrid", "how a program's run on the hidden tests is shaped"
    )
    code_weight: float = opt(0.2, "weight of R c in the code reward (the paper: 0.2)", WEIGHT)


@dataclass
class SandboxConfig:
    cpu_seconds: float = opt(2.0, "CPU time of a program on one test", SECONDS)
    wall_seconds: float = opt(
        10.0, "wall-clock time of a program on one test, for programs that sleep or wait", SECONDS
    )
    memory_mb: int = opt(1024, "address space of a program, in MiB", FROM_1)
    workers: int = opt(0, "programs that run at once; 0 takes the number of cores", FROM_0, later="yes")
    allow_weak_sandbox: bool = opt(
        False, "run programs even where the kernel gives no network or file isolation; logged loudly", later="yes"
    )


@dataclass
class GrpoConfig:
    problems: int = opt(16, "problems per round, over all ranks", FROM_1)
    epochs: int = opt(1, "passes over one rollout", FROM_1)
    minibatches: int = opt(1, "optimizer updates per pass", FROM_1)
    importance: Literal["token", "sequence"] = opt(
        "token", "ratio per token (GRPO) or one geometric-mean ratio per trace (GSPO)"
    )
    aggregate: Literal["sequence", "token", "constant"] = opt(
        "token",
        "loss mean over traces of token means, over all tokens (DAPO), or over traces x max_new_tokens (Dr. GRPO)",
    )
    advantage_scale: Literal["std", "none"] = opt("std", "divide a group's centred rewards by their deviation, or not")
    least_std: float = opt(
        0.0,
        "floor of that deviation, in units of reward: smaller differences move the policy less (0.05 with likelihoods)",
        FROM_0,
    )
    clip_low: float = opt(0.2, "ratio floor is 1 - clip_low", SHARE)
    clip_high: float = opt(0.2, "ratio ceiling is 1 + clip_high", FROM_0)
    kl_coef: float = opt(0.0, "weight of the KL penalty to the starting planner; above 0 keeps a frozen copy", WEIGHT)
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = opt(
        "k2",
        "KL penalty of a token: k2 and exact (the sum over the vocabulary) have the gradient of KL(planner | start); k3 "
        "has that of KL(start | planner); k1 has none in expectation and is refused",
    )
    entropy_coef: float = opt(0.0, "entropy bonus", SIGNED)
    flat_groups: Literal["count", "drop", "resample"] = opt(
        "count",
        "groups of equal rewards have no gradient: count them in the loss's denominators, drop them, or put fresh "
        "problems in their place (DAPO's dynamic sampling, arXiv 2503.14476)",
    )
    resample_rounds: int = opt(
        3, "most times that a round's flat groups are replaced; what is flat then is dropped", FROM_1
    )
    mask_truncated: bool = opt(
        False,
        "traces cut by planner.max_new_tokens are not trained and not counted, only compared with (DAPO's overlong "
        "filtering)",
    )


@dataclass
class OptimConfig:
    lr: float = opt(2e-4, "peak learning rate (the paper: 1e-6 for full 7B, 5e-6 for LoRA)", RATE)
    warmup: int = opt(2, "rounds of linear warm-up", FROM_0)
    schedule: Literal["constant", "linear", "cosine"] = opt("constant", "what the rate does after warm-up")
    beta1: float = opt(0.9, "AdamW first-moment decay", DECAY)
    beta2: float = opt(0.95, "AdamW second-moment decay", DECAY)
    weight_decay: float = opt(0.0, "AdamW weight decay, on matrices only", WEIGHT)
    max_grad_norm: float = opt(1.0, "global gradient norm is clipped to this", ABOVE_0)
    micro_tokens: int = opt(
        16384,
        "most tokens (padding included) in one forward and backward pass; changes memory, not gradients",
        FROM_1,
        later="yes",
    )
    checkpoint_activations: bool = opt(
        False, "keep only each block's input and compute the block again in the backward pass", later="yes"
    )
    state_dtype: Literal["float32", "bfloat16", "int8"] = opt(
        "float32", "AdamW moments between steps: 8, 4 or 2 bytes a parameter"
    )
    master_weights: bool = opt(True, "bfloat16 weights keep an fp32 master; without it they are rounded stochastically")
    on_nan: Literal["stop", "skip"] = opt(
        "stop", "a round whose loss or gradient is not finite stops the run, or is skipped and counted", later="yes"
    )
    nan_batches: int = opt(
        4,
        "most such batches each rank keeps in RUN/nan for study (python -m tracelift.explain.nan RUN); 0 keeps none",
        FROM_0,
        later="yes",
    )


@dataclass
class ParallelConfig:
    mode: Literal["none", "ddp", "fsdp"] = opt(
        "none",
        "planner stage on several ranks: replicas that add up gradients in one message "
        "after the backward pass, or during it (ddp), or weights in shards (fsdp)",
        later="yes",
    )
    timeout_s: float = opt(
        1800.0,
        "seconds a rank waits for the others before the job ends; more than executor.patience_s",
        SECONDS,
        later="yes",
    )


@dataclass
class LoraConfig:
    r: int = opt(
        0, "rank of LoRA adapters on the trained model; 0 trains every weight (the paper: 16 planner, 32 RM)", FROM_0
    )
    alpha: float = opt(32.0, "adapters are scaled by alpha / r", ABOVE_0)
    dropout: float = opt(
        0.0, "dropout before the adapters, in the reward_model stage alone; the others refuse it", DECAY
    )
    targets: list[str] = opt(
        ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "adapted layers, by name"
    )
    from_block: int = opt(0, "first block with adapters; those below it are computed without a backward pass", FROM_0)


@dataclass
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    reward_model: RewardModelConfig = field(default_factory=RewardModelConfig)
    reward: RewardFormulaConfig = field(default_factory=RewardFormulaConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)
    grpo: GrpoConfig = field(default_factory=GrpoConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    rm: RmTrainingConfig = field(default_factory=RmTrainingConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        # "section.key" → the file, or "command line", that gives its value; a default's is absent. No section: not compared
        # and not recorded.
        self.set_by: dict[str, str] = {}
