"""Two-stage evaluation: any planner writes a trace, any executor answers with it, and controls answer without it.

problems.py   benchmark files → problems        verdicts.py   artifact → verdicts by each rule
latex.py, bare.py         MATH answers
arms.py       what runs, resumable by records.py                    analysis.py   what it shows, with intervals
table.py, page.py, charts.py   for the terminal and the browser     rm.py   the Reason RM by itself
"""
