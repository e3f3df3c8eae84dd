"""What an evaluation shows: figures and comparisons (analysis.py), votes, runs as the unit, planning (power.py)."""
