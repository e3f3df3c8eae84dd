"""A run's keys: schema (planner), stages (sft, reward_model, eval), key (ranges, resume), load, check, demo, usage."""

from tracelift.config.demo import demo_defaults
from tracelift.config.load import config_of_run, load_config, to_dict
from tracelift.config.schema import Config
from tracelift.config.usage import help_text

__all__ = ["Config", "config_of_run", "demo_defaults", "help_text", "load_config", "to_dict"]
