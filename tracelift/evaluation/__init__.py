"""Two-stage evaluation: any planner writes a trace, any executor answers with it, and controls answer without it.

arms.py       what runs, resumable by records.py    verdicts.py   artifact → verdicts by each rule
analysis.py   figures with intervals                power.py      what a set of problems could show
table.py, page.py, charts.py   for the terminal and the browser     rm.py   the Reason RM by itself
"""
