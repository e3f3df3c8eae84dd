"""A run's folder and its life: folder (layout, logs, resume), checkpoints, signals (SIGTERM), plots, tensorboard."""
