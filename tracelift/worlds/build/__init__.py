"""Rebuilds the demos' models from seeds: `python -m tracelift.worlds.build math`."""
