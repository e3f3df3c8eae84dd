"""The frozen executor E: what a trace is worth is measured on it.

Reading order: executor (the two arms, K runs each), baselines (measured once a problem), backend (what is asked of a
model), local (a model in this process) or client and prefetch (a server) with transport (one call, retried) and
outage (waiting for a server), judge (text → verdict), likelihood (uplift without runs).
"""
