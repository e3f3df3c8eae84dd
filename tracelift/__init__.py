"""The method: data and groups, prompts, sampler, executor, verifiers and sandbox, rewards, GRPO, runs, reports."""
