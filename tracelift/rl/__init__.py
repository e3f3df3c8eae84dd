"""Reinforcement learning of the planner: from problems to an update.

Reading order: sample (what is known of one trace), rollout (sample, execute, verify, score), rewards, grpo (advantages
and loss), policy (the model being trained), metrics, held_out and report (what a person sees), nan_dump.
The loop itself is train.py.
"""
