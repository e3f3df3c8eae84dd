"""Problems, where they come from, and how planner and executor are asked.

Reading order: task (the two interfaces), sources (files), epochs (the order of rows), prompts, benchmarks (published
formats). The demo's own problems are in tracelift/worlds/.
"""
