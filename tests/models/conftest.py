"""Tiny models shared by the tests of this room. Norm weights and biases are random too, so that a swap shows."""

import pytest
import torch

from models import Transformer
from support.random_models import randomise, tiny_config


@pytest.fixture
def make_model():
    """make_model(seed=0, **config changes) -> a random tiny Transformer in eval mode."""

    def make(seed: int = 0, **changes) -> Transformer:
        model = Transformer(tiny_config(**changes))
        randomise(model, seed)
        return model.eval()

    return make


@pytest.fixture
def tokens():
    return torch.randint(0, 61, (2, 40), generator=torch.Generator().manual_seed(7))
