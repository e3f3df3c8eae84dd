"""Tiny random models and prompts for the sampler's tests."""

import random

from models.config import ModelConfig
from models.transformer import Transformer

VOCAB = 97


def tiny(seed=0, **options) -> Transformer:
    shape = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_layers=2, num_heads=4, num_kv_heads=2)
    config = ModelConfig(**{**shape, "head_dim": 16, "max_positions": 1536, "norm_eps": 1e-5, **options})
    return Transformer(config).init_weights(seed, std=0.25)


def family_tree(seed=0) -> list[list[int]]:
    """Instruction → problems → traces, off every page boundary, with strangers, a repeat and a prompt inside another."""
    draw = random.Random(seed)

    def ids(low, high):
        return [draw.randrange(4, VOCAB) for _ in range(draw.randint(low, high))]

    instruction, prompts = ids(41, 41), []
    for _ in range(4):
        problem = instruction + ids(9, 60)
        prompts += [problem] + [problem + ids(1, 70) for _ in range(3)]
    return prompts + [[5], ids(2, 2), ids(150, 150), instruction + ids(33, 33)]
