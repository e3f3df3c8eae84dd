"""An executor and a Reason RM behind HTTP, so that other trainers and other machines can use them.

    POST /v1/completions    the OpenAI protocol of text completions, answered by tracelift.sampler
    POST /score             the authors' schema: {"items": [{"problem", "reasoning", "task_name", "task_type"}],
                            "max_length", "batch_size"} -> {"scores": [...]}
    GET  /v1/models, /health

    requests ─ web.py (bounds, key, errors) ─ completions.py, score.py (fields) ─ batching.py (one worker a model) ─ model

`python -m tracelift.serve --help`. The other ends are tracelift/executor/remote/client.py and tracelift/reward_model/remote.py.

Left out: chat completions (whoever writes prompts formats them), streaming, TLS (a proxy's work), several models of one
kind, and requests that join a batch already under way: a batch runs to its end, what came meanwhile is the next.
"""
