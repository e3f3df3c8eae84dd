"""`train.py CONFIG --dry-run`: everything a run does before its first weight, told; nothing is written.

    stages    the three stages in order: folder, devices, models by their config.json, data, memory, disk
    inputs    the prompts of one problem, and the longest inputs against the contexts
    folder    who works in the run folder, and where going on would start
    lines     how it is told

What the run would refuse, at once or an hour later, is raised with the run's own sentence where it has one. Left out: the
weights themselves, what servers answer (that somebody listens there is looked at, nothing is asked), and the run's logs on
disk.
"""

from tracelift.dry_run.stages import dry_run

__all__ = ["dry_run"]
