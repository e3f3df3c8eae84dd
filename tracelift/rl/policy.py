"""π_θ and what travels with it: tokenizer, prompt, frozen reference, layout over ranks, sampler, and its files.

Left out: the optimizer and the update (tracelift/training/learner.py), the loss (tracelift/rl/grpo.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import models
from models import Tokenizer, Transformer
from models.lora import adapted, save_adapter
from tracelift.config import Config
from tracelift.distributed.parallel import Parallel
from tracelift.rl.grpo import Reference
from tracelift.rl.rollout import PlannerPrompt, sample_traces
from tracelift.rl.sample import Sample
from tracelift.sampler import Sampler, SamplingParams
from tracelift.tasks.task import Task


@dataclass
class Policy:
    """The planner being trained. `parallel.policy` computes gradients, `parallel.whole` is gathered for sampling."""

    config: Config
    model: Transformer
    tokenizer: Tokenizer
    reference: Reference | None
    parallel: Parallel[Transformer]
    sampler: Sampler
    prompt: PlannerPrompt

    def sample(
        self, step: int, problems: Sequence[tuple[int, Task]], prefetch: Callable[[Task, str], None] | None = None
    ) -> list[list[Sample]]:
        """z ~ π_θ(· | x), G traces of each (number in the round, problem). Collective: gathers the weights."""
        c = self.config.planner
        self.model.eval()  # no dropout between the sampled distribution and the scored one
        self.parallel.gather()
        params = SamplingParams(
            n=c.samples,
            max_new_tokens=c.max_new_tokens,
            temperature=c.temperature,
            seed=self.config.run.seed,
            stop=tuple(c.stop),
        )
        return sample_traces(
            self.sampler,
            self.prompt,
            [task for _, task in problems],
            params,
            [(step, number) for number, _ in problems],
            self.config.executor.max_trace_chars,
            prefetch,
        )

    def write(self, folder: Path) -> None:
        """A checkpoint's model: the adapter alone where one is trained."""
        if adapted(self.model):
            save_adapter(self.parallel.whole, folder, self.config.planner.path)
        else:
            models.save_pretrained(self.parallel.whole, folder, self.tokenizer)

    def read(self, folder: Path) -> Transformer:
        if adapted(self.model):
            return models.load_pretrained(self.config.planner.path, self.model.dtype, "cpu", adapter=folder)
        return models.load_pretrained(folder, self.model.dtype, "cpu")

    def export(self, folder: Path, writes: bool) -> None:
        """The finished model as a Hugging Face folder, adapters merged, and beside it the adapter. Collective."""
        self.parallel.gather()
        if not writes:
            return
        models.save_pretrained(self.parallel.whole, folder / "final", self.tokenizer)
        if adapted(self.model):
            self.write(folder / "final-adapter")
