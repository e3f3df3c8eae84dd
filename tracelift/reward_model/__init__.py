"""The Reason RM R(x, z): a rubric's five dimensions and a total, as a score in [0, 1].

Reading order: scorer (the text it reads, its scores), loss, group_format (the data), train (the stage), prefix_tree
(a group read once), remote (a server), oracle (the demo's own rubric, for studies). The network is models/reward.py.
"""
