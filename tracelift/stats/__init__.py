"""The statistics that results are reported with, exact where an exact test exists, on the standard library alone.

Left out on purpose: anything that needs scipy at run time.
"""

from tracelift.stats.paired import paired_interval, paired_mean, sign_flip
from tracelift.stats.proportions import clopper_pearson, majority_at_k, mcnemar_exact, pass_at_k, wilson
from tracelift.stats.runs import holm, permutation_blocks, permutation_exact, welch, welch_blocks

__all__ = [
    "clopper_pearson",
    "holm",
    "majority_at_k",
    "mcnemar_exact",
    "paired_interval",
    "paired_mean",
    "pass_at_k",
    "permutation_blocks",
    "permutation_exact",
    "sign_flip",
    "welch",
    "welch_blocks",
    "wilson",
]
