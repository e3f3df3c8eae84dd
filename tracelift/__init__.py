"""TraceLift: train a planner to write reasoning that measurably helps a frozen executor (arXiv 2605.03862).

The rooms in reading order. A module imports from its own room and from rooms above it in this list, never from below
(tests/test_architecture.py):

    errors         messages a user can act on
    files rubrics  JSON, its lines and whole files; the rubric's labels
    config/        every key with its meaning and range, read from a file and the command line
    stats/         intervals and tests
    sandbox/       runs untrusted programs
    sampler/       draws tokens from a model with a KV cache
    verify/        numbers and LaTeX → PASS, FAIL, ERROR
    programs/      code problems, a model's program, the verdict of its tests
    tasks/         problems, where they come from, prompts and tags
    executor/      the frozen executor: with a trace, without it, the cached baseline, servers
    worlds/        the demo worlds, whose truth is known
    distributed/   ranks, and a model spread over them
    runs/          the run folder with its checkpoints, signals, plots
    training/      optimizer, packing (which tokens are trained), sft
    reward_model/  the Reason RM: its text, loss, scores and training
    rl/            rollout, rewards, GRPO, what a run reports
    build          a run's parts from its config
    dry_run/       what a run would do, up to its first weight
    evaluation/    two-stage evaluation with controls and paired statistics
    explain/       how one reward came about
    worlds/build/  makes the demo's models
    groups/        makes the Reason RM's data
    serve/         executor and Reason RM behind HTTP

kernels/ and models/ come before all of them, train.py, eval.py and examples/ after.
"""

__version__ = "0.2.0"
