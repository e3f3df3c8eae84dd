"""A gradient that is not finite leaves its batch behind: complete, bounded in number, and readable by a person."""

import json
import math
from functools import partial

import pytest
import torch
from torch import nn

import models
import tracelift.rl.nan_dump as bad_batch_module
from support.job_server import Hurt
from support.tiny_job import planner_arguments
from tracelift.config.schema import OptimConfig
from tracelift.distributed.world import World
from tracelift.errors import TrainingError
from tracelift.explain.nan import main, show
from tracelift.rl.nan_dump import keep_batch
from tracelift.training.learner import Learner

RUN = ("--run.steps", "2", "--run.save_every", "1", "--data.eval_problems", "0")


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_batch_of_a_bad_round_names_its_micro_batch_and_can_be_scored_again(job, server, out, ranks, capsys):
    """One small micro-batch of several is spoilt, on rank 0; 2 ranks each keep their own rows and agree on the sum."""
    hurt = Hurt("nan", "train:policy_loss", 2, rank=0)
    ended = server.start(*planner_arguments(job, out, *RUN, "--optim.micro_tokens", "60"), hurt=hurt, ranks=ranks)
    assert all(
        e.code == 2 and f"python -m tracelift.explain.nan {out} step-000001.update-0.rank-{r}.jsonl" in e.message
        for r, e in enumerate(ended)
    ), ended
    files = sorted((out / "nan").iterdir())
    assert [p.name for p in files] == [f"step-000001.update-0.rank-{r}.jsonl" for r in range(ranks)]
    for rank, path in enumerate(files):
        head, *samples = (json.loads(line) for line in path.read_text().splitlines())
        assert math.isnan(float(head["grad_norm"])) and len(head["grad_norms"]) == 11 and head["counts"]["tokens"] > 0
        spoilt = [m for m in head["micro_batches"] if math.isnan(float(m["loss"]))]
        assert len(spoilt) == (1 if rank == 0 else 0) < len(head["micro_batches"]), (
            "the second of rank 0, and only that"
        )
        assert sorted(i for m in head["micro_batches"] for i in m["samples"]) == sorted(s["id"] for s in samples)
        text = show(path)
        marked = {int(line[:7]) for line in text.splitlines() if line[7:8] == "*"}
        assert marked == {i for m in spoilt for i in m["samples"]} and "gradients that are not finite: 11 of 11" in text
    model = models.load_pretrained(job / "planner")  # round 1: the starting planner wrote these
    for s in samples:
        tokens = torch.tensor([s["prompt_token_ids"] + s["token_ids"]])
        with torch.no_grad():
            logp = model.logits(model(tokens))[0].log_softmax(-1)
        scored = logp[len(s["prompt_token_ids"]) - 1 : -1].gather(1, torch.tensor(s["token_ids"])[:, None])[:, 0]
        assert torch.allclose(scored, torch.tensor(s["logprobs"]), atol=1e-4), (
            "prompt, targets and log-probs belong together"
        )
    assert (
        main([str(out), files[0].name]) == 0
        and "micro-batches whose loss is not finite: 1 of" in capsys.readouterr().out
    )


def test_every_parameters_own_norm_is_kept_as_it_was(tmp_path):
    """Clipping first would multiply all gradients by NaN, and the one that is to blame could no longer be told."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    learner = Learner(
        model,
        OptimConfig(on_nan="stop", nan_batches=2),
        10,
        World(),
        bad_batches=partial(bad_batch_module.keep_batch, tmp_path / "run" / "nan"),
    )
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    model[1].bias.grad[0] = math.inf
    with pytest.raises(
        TrainingError,
        match=r"round 5: .*\(norm inf\).*python -m tracelift.explain.nan .*run step-000005.update-3.rank-0",
    ):
        learner.update(4, 3, lambda: ({"micro_batches": [], "counts": {}}, []))
    (path,) = (tmp_path / "run" / "nan").iterdir()
    norms = {name: float(norm) for name, norm in json.loads(path.read_text())["grad_norms"].items()}
    assert norms == {
        "0.weight": pytest.approx(12**0.5),
        "0.bias": 2.0,
        "1.weight": pytest.approx(8**0.5),
        "1.bias": math.inf,
    }
    assert show(path).splitlines()[1:3] == ["gradients that are not finite: 1 of 4 parameters", "  1.bias"]


def test_no_more_than_the_limit_are_kept_and_a_repeated_round_replaces_its_own(tmp_path):
    head = {"grad_norm": math.nan, "grad_norms": {}, "micro_batches": [], "counts": {}}
    kept = [keep_batch(tmp_path, 2, step, 0, rank, head, []) for step in range(4) for rank in range(2)]
    assert [p is not None for p in kept] == [True] * 4 + [False] * 4, "the first of each rank"
    assert keep_batch(tmp_path, 2, 1, 0, 1, head | {"again": 1}, []) == kept[3] and '"again": 1' in kept[3].read_text()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_viewer_says_what_is_not_there(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0 and "no batch was kept" in capsys.readouterr().out
    (tmp_path / "nan").mkdir()
    (tmp_path / "nan" / "x.jsonl").write_text('{"a": 1}\n')
    assert main([str(tmp_path), "x.jsonl"]) == 1 and "is not a batch kept" in capsys.readouterr().err
    assert main([str(tmp_path), "y.jsonl"]) == 1 and "y.jsonl" in capsys.readouterr().err
    assert main([]) == 1
