"""Everything in this folder runs inside the launcher process, standard library only, before and around the program.

The launcher starts as `python -P -s -S` with this folder's parent alone on its path, so none of these modules may
import the rest of TraceLift (or torch). Reading order: `launcher` (one process for the life of a sandbox) forks
`guard` (one for each program), which forks the program itself; `confine` is what the program cannot get out of, made
of `rootfs` (what it can see), `landlock`, `seccomp` (what it can ask of the kernel) and `syscalls`. In the program's
process `script` runs its text, or `serve` answers calls of its functions for `examine`, which runs tests elsewhere.
"""
