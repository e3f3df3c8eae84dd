"""Numbers as a trace writes them: in the style of the number that stood there, rounded as it is, or not at all.

Left out: reading numbers (tracelift/verify/arithmetic.py).
"""

from __future__ import annotations

from fractions import Fraction


def decimals(text: str) -> int:
    """How many decimals the numeral `text` is written with."""
    return len(text.partition(".")[2])


def rounded(value: Fraction, like: str) -> Fraction:
    """`value` to as many decimals as `like` is written with, where it is not exact there; half away from zero."""
    scale = 10 ** decimals(like)
    scaled = value * scale
    if scaled.denominator == 1:
        return value
    return Fraction(int(abs(scaled) + Fraction(1, 2)) * (1 if scaled > 0 else -1), scale) if decimals(like) else value


def decimal(value: Fraction) -> str | None:
    """`value` as a decimal numeral, or None where it has none of at most six places."""
    scaled = value * 10**6
    if scaled.denominator != 1 or value < 0:
        return None
    text = f"{int(value)}.{int(scaled) % 10**6:06d}".rstrip("0").rstrip(".")
    return text if len(text) < 16 else None


def write_number(value: Fraction, like: str) -> str | None:
    """`value` in the style of the numeral `like` (decimals, thousands commas), or None where it does not fit it."""
    places = decimals(like)
    scaled = abs(value) * 10**places
    if scaled.denominator != 1 or abs(value) >= 10**12:
        return None
    whole, part = divmod(int(scaled), 10**places)
    digits = f"{whole:,}" if "," in like or (whole >= 10_000 and len(like.split(".")[0]) < 4) else f"{whole}"
    return "-" * (value < 0) + digits + (f".{part:0{places}d}" if places else "")
