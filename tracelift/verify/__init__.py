"""The verifier V(a) for numbers and expressions: does the executor's text state the reference's answer?

    from tracelift.verify import verify_math, Verdict
    verify_math("So she pays $12.50.", "12.5") is Verdict.PASS

Reading order: verdict; lexing, vocabulary, expressions, grammar (what a number is), prose, where (where the answer stands),
math (whether it is equal); leaks (is it in the trace already). boxed says what stands beside a mark; latex is for MATH's expressions,
arithmetic for the sums inside a trace.
"""

from tracelift.verify.leaks import Leak, leaks_answer
from tracelift.verify.math import extract_answer, gsm8k_flexible, gsm8k_strict, verify_math
from tracelift.verify.verdict import Verdict

__all__ = ["Leak", "Verdict", "extract_answer", "gsm8k_flexible", "gsm8k_strict", "leaks_answer", "verify_math"]
