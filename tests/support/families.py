"""Random tiny checkpoints of every family, and what is asked of each against transformers and PEFT (dev-only oracles).

`python -m tests.support.families` prints the table in docs/models.md: families × what holds, with the
worst relative error; `--write` renews it there, with the line numbers of the worked example. Left out: refusals (tests/models/test_hf_config.py) and GGUF files (tests/models/test_convert_gguf.py).
"""

import argparse
import random
import re
import tempfile
from pathlib import Path

import torch

import models
from models import lora
from models.checkpoint import parts_of
from models.config import FAMILIES
from tests.support.random_models import randomise
from tracelift.reward_model.prefix_tree import pack_trees, trees
from tracelift.sampler import Sampler, SamplingParams
from tracelift.sampler.scoring import score
from tracelift.training.packing import Row, pack
from tracelift.training.recompute import recompute_blocks

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(3)


def draw(family: str, seed: int):  # -> a transformers model with random weights
    """Heads, sizes, biases, rope and the family's own settings, all drawn by (family, seed)."""
    import transformers

    rng = random.Random(f"{family}:{seed}")
    kv = rng.choice((1, 2, 3))
    heads = kv * rng.choice((1, 2, 3))
    size = dict(
        vocab_size=rng.randint(31, 97),
        hidden_size=heads * rng.choice((4, 6, 8)),
        intermediate_size=rng.randint(20, 60),
        num_hidden_layers=rng.randint(2, 4),
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=128,
        rms_norm_eps=rng.choice((1e-6, 1e-4, 0.03)),
        tie_word_embeddings=rng.random() < 0.5,
        rope_parameters=_rope(rng, family),
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    if rng.random() < 0.5 or family in ("qwen3", "seed_oss"):
        size["head_dim"] = rng.choice((4, 10, 16))
    own = {key: rng.random() < 0.5 for key in FAMILIES[family].biases}
    if family == "mistral":
        own["sliding_window"] = None
    if family == "smollm3":
        layers = size["num_hidden_layers"]
        own["no_rope_layers"] = rng.choice((None, [rng.randint(0, 1) for _ in range(layers)]))
        own["no_rope_layer_interval"] = rng.choice((2, 3))
    if family == "granite":
        own |= dict(
            embedding_multiplier=rng.uniform(0.5, 12),
            residual_multiplier=rng.uniform(0.2, 1.5),
            attention_multiplier=rng.uniform(0.05, 0.5),
            logits_scaling=rng.uniform(0.5, 16),
        )
    prefix = FAMILIES[family].prefix
    config = getattr(transformers, prefix + "Config")(**size, **own)
    model = getattr(transformers, prefix + "ForCausalLM")(config).eval()
    randomise(model, seed)
    model.tie_weights()
    return model


def _rope(rng: random.Random, family: str) -> dict:
    kind = "default" if family == "phi3" else rng.choice(("default", "linear", "llama3", "yarn", "yarn"))
    rope: dict = {"rope_type": kind, "rope_theta": rng.choice((7.5, 300.0, 1e6))}
    if kind != "default":
        rope["factor"] = rng.uniform(1.5, 9)
    if kind in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = rng.choice((24, 64))
    if kind == "llama3":
        rope |= {"low_freq_factor": rng.uniform(0.5, 1.5), "high_freq_factor": rng.uniform(2, 5)}
    if kind == "yarn":
        more = [{}, {"attention_factor": 1.3}, {"mscale": 1.2, "mscale_all_dim": 0.7}, {"truncate": False}]
        rope |= rng.choice(more) | rng.choice(({}, {"beta_fast": 4.0, "beta_slow": 0.5}))
    return rope


class Pair:
    """One checkpoint in transformers and, through its folder, here. Each check returns its worst relative error."""

    def __init__(self, family: str, seed: int, folder: Path) -> None:
        self.family, self.seed, self.folder = family, seed, folder
        self.theirs = draw(family, seed)
        self.theirs.save_pretrained(folder / "theirs")
        self.ours = models.load_pretrained(folder / "theirs")
        gen = torch.Generator().manual_seed(seed)
        self.vocab = self.ours.config.vocab_size
        self.ids = torch.randint(self.vocab, (2, 100), generator=gen)
        self.rng = random.Random(seed)

    def words(self, n: int) -> list[int]:
        return [self.rng.randrange(self.vocab) for _ in range(n)]

    def logits(self) -> float:
        with torch.no_grad():
            return max(
                distance(self.ours.logits(self.ours(ids)), self.theirs(ids).logits)
                for ids in (self.ids[:, :1], self.ids[:, :17], self.ids)
            )

    def saved(self):
        """What transformers makes of the folder that we write."""
        import transformers

        if not (self.folder / "ours").exists():
            models.save_pretrained(self.ours, self.folder / "ours")
        again, info = transformers.AutoModelForCausalLM.from_pretrained(
            self.folder / "ours", dtype=torch.float32, output_loading_info=True
        )
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
        return again.eval()

    def save(self) -> float:
        again = self.saved()
        assert models.load_pretrained(self.folder / "ours").config == self.ours.config
        with torch.no_grad():
            return distance(again(self.ids).logits, self.theirs(self.ids).logits)

    def generate(self) -> float:
        """Greedy text, by the paged engine or the static one (odd seeds), and log-probabilities of continuations."""
        prompts = [self.words(n) for n in (1, 40)]
        wanted = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            out = self.theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
            wanted.append(out[0, len(prompt) :].tolist())
        sampler = Sampler(self.ours, (), 0, static=bool(self.seed % 2))
        answers = sampler.generate(prompts, SamplingParams(max_new_tokens=8, temperature=0))
        assert [a.tokens for (a,) in answers] == wanted, (self.family, self.seed)
        texts = [(tuple(p), tuple(w)) for p, w in zip(prompts, wanted, strict=True)]
        found = score(self.ours, texts, (), 1.0, 2**24)
        expected = [self.their_logprobs(p, w).tolist() for p, w in zip(prompts, wanted, strict=True)]
        return distance(torch.tensor(found), torch.tensor(expected))

    def their_logprobs(self, prompt: list[int], answer: list[int]):  # -> (len(answer),)
        logp = self.theirs(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        return torch.stack([logp[at, token] for at, token in zip(places, answer, strict=True)])

    def train_step(self) -> float:
        """Gradients of a packed batch against one text at a time, and logits after a step along them."""
        if self.seed % 2:
            recompute_blocks(self.ours)
        row = Row(self.words(9), [self.words(5 + i % 2) for i in range(6)], list(range(6)))
        batch = pack([row], pad_id=0)
        hidden = batch.predictors(self.ours(batch.tokens, batch.positions, batch.attend()))
        logp = self.ours.logits(hidden).log_softmax(-1).gather(-1, batch.targets[:, None])
        logp.mean().backward()
        torch.cat([self.their_logprobs(row.prompt, sample) for sample in row.samples]).mean().backward()
        grads = {name: p.grad for name, p in self.ours.named_parameters()}
        worst, scale = 0.0, max(p.grad.norm().item() for p in self.theirs.parameters())
        for name, p in self.theirs.named_parameters():
            found = torch.cat([grads[part] for part in parts_of(name, grads)])
            # A bias of keys that do not turn moves no probability: its gradient is rounding alone.
            worst = max(worst, (found - p.grad).norm().item() / max(p.grad.norm().item(), 1e-3 * scale))
        with torch.no_grad():
            for p in (*self.ours.parameters(), *self.theirs.parameters()):
                p += 0.01 * p.grad
            return max(worst, distance(self.ours.logits(self.ours(self.ids)), self.theirs(self.ids).logits))

    def prefix_tree(self) -> float:
        """Hidden states at the ends of texts that share their beginnings, as the Reason RM reads them."""
        start = self.words(20)
        texts = [start + self.words(n) for n in (4, 7, 30)] + [start]
        batch = pack_trees(trees(texts, [0] * len(texts)), 0)
        with torch.no_grad():
            last = batch.last(self.ours.model(batch.tokens, batch.positions, batch.attend()))
            found = dict(zip(batch.ids.tolist(), last, strict=True))
            wanted = [self.theirs.model(torch.tensor([t])).last_hidden_state[0, -1] for t in texts]
        return distance(torch.stack([found[i] for i in range(len(texts))]), torch.stack(wanted))

    def adapted(self) -> float:
        """Adapters made here and read by PEFT, on the folder that we write; merged too."""
        import peft

        base = self.saved()
        ours = models.load_pretrained(self.folder / "ours")
        lora.attach(ours, lora.LoRAConfig(r=2, alpha=5.0), seed=self.seed)
        gen = torch.Generator().manual_seed(self.seed)
        for p in lora.trainable(ours).values():
            p.data = torch.randn(p.shape, generator=gen) * 0.2
        lora.save_adapter(ours, self.folder / "adapter")
        theirs = peft.PeftModel.from_pretrained(base, self.folder / "adapter").eval()
        with torch.no_grad(), lora.merged(ours):
            merged = distance(ours.logits(ours(self.ids)), theirs(self.ids).logits)
        with torch.no_grad():
            return max(merged, distance(ours.logits(ours(self.ids)), theirs(self.ids).logits))


CHECKS = {
    "load, logits": Pair.logits,
    "save": Pair.save,
    "generate, score": Pair.generate,
    "RM's prefix tree": Pair.prefix_tree,
    "LoRA": Pair.adapted,
    "train a step": Pair.train_step,  # last: it moves the weights
}


def distance(a, b) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


def table(seeds: int = 4) -> str:
    lines = [f"| family | {' | '.join(CHECKS)} |", "|---" * (len(CHECKS) + 1) + "|"]
    for family in FAMILIES:
        worst = dict.fromkeys(CHECKS, 0.0)
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                pair = Pair(family, seed, Path(folder))
                for name, check in CHECKS.items():
                    worst[name] = max(worst[name], check(pair))
        lines.append(f"| {family} | {' | '.join(f'{e:.0e}' for e in worst.values())} |")
    return "\n".join(lines)


# The worked example of docs/models.md: a line of the source that is there once, and what it is.
EXAMPLE = [
    ("models/config.py", '"smollm3": Family(', "what its class in transformers assumes"),
    ("models/config.py", "rope_free_layers: tuple[int, ...] = ()", "the one difference, a field"),
    ("models/transformer.py", "self.turns = layer not in config.rope_free_layers", "the field, in the layer"),
    ("models/transformer.py", "if self.turns:", "the formula"),
    ("models/hf_config.py", "def _rope_free_layers(", "reading the list, refusing what is none"),
    ("models/hf_config.py", "rope_free_layers=_rope_free_layers(r, layers)", "config.json → ModelConfig"),
    ("models/hf_config.py", 'raw["no_rope_layers"] = [', "ModelConfig → config.json"),
    ("models/convert_gguf.py", "_INTERLEAVED = (", "llama.cpp interleaves its queries and keys"),
    ("models/convert_gguf.py", "rope_free_layers=tuple(range(3, layers, 4))", "and has the layers as a constant"),
    ("tests/support/families.py", 'own["no_rope_layers"] = rng.choice(', "random checkpoints of it"),
    ("tests/support/random_models.py", '"smollm3": dict(', "the field for all tests"),
]


def line_of(path: str, code: str) -> int:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    found = [i for i, line in enumerate(lines, 1) if line.strip().startswith(code)]
    assert len(found) == 1, f"{path}: {code!r} begins {len(found)} lines"
    return found[0]


def example() -> str:
    return "\n".join(f"| {path}:{line_of(path, code)} `{code}` | {what} |" for path, code, what in EXAMPLE)


def write() -> None:
    """Renew the table and the line numbers in docs/models.md."""
    page = ROOT / "docs" / "models.md"
    text = page.read_text(encoding="utf-8")
    marks = "<!-- families:begin -->\n", "<!-- families:end -->"
    text = re.sub(f"(?<={marks[0]}).*?(?={marks[1]})", lambda _: f"\n{table()}\n\n", text, flags=re.DOTALL)
    rows = r"(?<=\| where \| what \|\n\|---\|---\|\n).*?(?=\n\n)"
    page.write_text(re.sub(rows, lambda _: example(), text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The table of families in docs/models.md, from random checkpoints.")
    parser.add_argument(
        "--write", action="store_true", help="renew it there, with the line numbers of the worked example"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    write() if asked.write else print(table())
