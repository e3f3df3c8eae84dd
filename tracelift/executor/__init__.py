"""The frozen executor E: what a trace is worth is measured on it.

Reading order: executor (the two arms, K runs each), outcome (what came of a trace), baselines (measured once a problem),
backend (what is asked of a model), local (a model in this process), judge (text → verdict), likelihood (uplift without runs),
cost (what it took); remote/ for a model behind a server.
"""
