"""Flaws of sound traces. trace: a solution read as sums; math and code: its flaws; wording: how words and numbers change."""
