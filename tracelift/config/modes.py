"""The rewards by name, and what each asks for: the Reason RM, repeated runs, the baseline without a trace.

    tracelift      math ½·e2e + ½·R·u, code exec + w·R·c        the paper's
    exec_only      e2e, exec                                    its baseline: outcomes alone
    rm_only        R                                            its factors, alone and together
    uplift_only    u
    product_only   R·u, R·c
    gated          R·e2e, R·exec                                the rubric counts where the artifact is right: one run
    additive       ½·e2e + ½·R, exec + w·R                      the rubric beside the outcome: one run
    graded         R·success_with                               the rubric times the success rate: K runs, no baseline

The last three take one thing each out of the paper's reward (docs/method.md, rewards beside the paper's). Left out: the
formulas (tracelift/rl/rewards.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Needs(NamedTuple):
    rm: bool
    repeats: bool  # K runs with the trace beside the end-to-end run; by likelihood one scoring pass
    baseline: bool


MODES = {
    "tracelift": Needs(True, True, True),
    "exec_only": Needs(False, False, False),
    "rm_only": Needs(True, False, False),
    "uplift_only": Needs(False, True, True),
    "product_only": Needs(True, True, True),
    "gated": Needs(True, False, False),
    "additive": Needs(True, False, False),
    "graded": Needs(True, True, False),
}
