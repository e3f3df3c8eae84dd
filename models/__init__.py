"""Transformers, tokenizers and reward models read from and written to Hugging Face folders; knows no rewards or data."""

from models.checkpoint import load_pretrained, save_pretrained
from models.config import ModelConfig, RopeScaling
from models.hf_config import CheckpointError
from models.tokenizer import Tokenizer, load_tokenizer
from models.transformer import Transformer

__all__ = [
    "CheckpointError",
    "ModelConfig",
    "RopeScaling",
    "Tokenizer",
    "Transformer",
    "load_pretrained",
    "load_tokenizer",
    "save_pretrained",
]
