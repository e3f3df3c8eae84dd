"""Why a trace earned its reward: `python -m tracelift.explain RUN`; why a gradient was not finite: `.nan`."""
