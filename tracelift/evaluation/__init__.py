"""Two-stage evaluation: any planner writes a trace, any executor answers with it, and controls answer without it.

arms.py       what runs, resumable by records.py     traces.py      stage 1: a planner's traces and their scores
bench.py      what both stages share, typed          verdicts.py    artifact → verdicts by each rule
analysis.py   what it shows, with intervals (power.py)
table.py, page.py, charts.py   for the terminal and the browser     rm.py   the Reason RM by itself
"""
