"""What tests of whole runs compare."""

import math


def assert_same_metrics(found, expected, tolerance=1e-4):
    for a, b in zip(found, expected, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if not key.startswith(("fresh_ratio", "kl_old")):  # rounding itself, a few 1e-7
                same = a[key] is b[key] is None or math.isclose(a[key], b[key], rel_tol=tolerance, abs_tol=1e-5)
                assert same, (a["step"], key, a[key], b[key])
