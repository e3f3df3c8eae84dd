"""The demo's own defaults beside models or data that are not the demo's: what is said of them, and what is not loaded.

With no arguments a run is the demo, so the defaults are the demo's. Each of those below belongs to the demo's planner,
executor or problems; where that part is the user's own and the key is still the default, a run says so in one line. A
key that a file or the command line gives, the demo's value included, is meant. Left out: numbers (lengths, rates), which
are tuned for the demo and wrong for nobody; the refusal to pay by the demo's Reason RM (check.py).
"""

from __future__ import annotations

from tracelift.config.key import value_of
from tracelift.config.modes import MODES
from tracelift.config.schema import Config

# key: the parts of a run it belongs to, what is the demo's about it, what to give instead
DEMO_DEFAULTS: dict[str, tuple[frozenset[str], str, str]] = {
    "planner.path": (frozenset({"data"}), "reads the demo's problems only", "a model folder"),
    "executor.path": (frozenset({"data"}), "reads the demo's problems only", "a model folder, or executor.url"),
    "planner.prompt": (
        frozenset({"planner", "data"}),
        "is the problem alone, without instructions",
        "math, code, or a text file with {problem}",
    ),
    "executor.prompt": (
        frozenset({"executor", "data"}),
        "is problem and trace, without instructions",
        "math, code, or a text file with {problem} and {trace}",
    ),
    "executor.baseline_prompt": (
        frozenset({"executor", "data"}),
        "is the problem alone, without instructions",
        "math, code, or a text file with {problem}",
    ),
    "executor.stop": (
        frozenset({"executor", "data"}),
        "ends an answer at its first line break",
        "the strings that end yours",
    ),
    "reward_model.path": (
        frozenset({"planner", "data"}),
        "was trained on traces in the demo's style",
        "a Reason RM's folder, or '' for none",
    ),
}


def needs_rm(c: Config) -> bool:
    """Whether the reward is made with the Reason RM's score."""
    return MODES[c.reward.mode].rm


def drop_unasked_rm(c: Config) -> None:
    """Without need and name no Reason RM: where the reward needs none, the default `reward_model.path` becomes empty."""
    if not needs_rm(c) and "reward_model.path" not in c.set_by:
        c.reward_model.path = ""


def own_parts(c: Config, own_data: bool | None = None) -> set[str]:
    """Which of "planner", "executor" and "data" are not the math demo's. own_data: of problems that are not data.source."""
    demo = Config()
    own = {
        "planner": c.planner.path != demo.planner.path or bool(c.planner.adapter),
        "executor": c.executor.path != demo.executor.path or bool(c.executor.url),
        "data": c.data.source != demo.data.source if own_data is None else own_data,
    }
    return {part for part, is_own in own.items() if is_own}


def demo_defaults(c: Config, own_data: bool | None = None) -> list[str]:
    """One line for each default of the demo's that meets a part of the user's own (`own_parts`); none for the demo itself."""
    parts, demo, lines = own_parts(c, own_data), Config(), []
    for name, (belongs, what, instead) in DEMO_DEFAULTS.items():
        value = value_of(c, name)
        unused = name in ("executor.path", "reward_model.path") and value_of(c, name.replace("path", "url"))
        untouched = name not in c.set_by and value == value_of(demo, name)
        if untouched and not unused and parts & belongs:
            lines.append(
                f"note: {name} = {value!r} is the demo's default and {what}; your {' and '.join(sorted(parts & belongs))} may "
                f"need another: --{name} ({instead})"
            )
    return lines
