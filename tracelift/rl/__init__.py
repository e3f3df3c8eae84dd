"""Reinforcement learning of the planner: from problems to an update.

Reading order: sample (what is known of one trace), rollout (sample, execute, verify, score), rewards, grpo (advantages
and loss), flat_groups (groups that teach nothing), policy (the model being trained), totals, metrics and held_out (what is
measured), progress and report (what a person sees), nan_dump.
The loop itself is train.py.
"""
