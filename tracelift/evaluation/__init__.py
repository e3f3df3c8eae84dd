"""Two-stage evaluation: any planner writes a trace, any executor answers with it, and controls answer without it.

arms.py       what runs, resumable by records.py     traces.py      stage 1: a planner's traces and their scores
bench.py      what both stages share, typed          verdicts.py    artifact → verdicts by each rule
spending.py   what each part took
figures/      what it shows, with intervals          samples.py     every sample as one line; export.py for other tools
report/       for the browser; table.py for the terminal            rm.py   the Reason RM by itself
"""
