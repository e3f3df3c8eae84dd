"""Transformers, tokenizers and reward models in Hugging Face folders, read and written; knows no data or rewards."""

from models.checkpoint import load_pretrained, save_pretrained
from models.config import ModelConfig, RopeScaling
from models.config_json import CheckpointError
from models.reward import RewardConfig, RewardModel, RewardScores, load_reward_model, save_reward_model
from models.text.tokenizer import Tokenizer, load_tokenizer
from models.transformer import Transformer

__all__ = [
    "CheckpointError",
    "ModelConfig",
    "RewardConfig",
    "RewardModel",
    "RewardScores",
    "RopeScaling",
    "Tokenizer",
    "Transformer",
    "load_pretrained",
    "load_reward_model",
    "load_tokenizer",
    "save_pretrained",
    "save_reward_model",
]
