"""The arithmetic of benchmarks/scaling.py against torch's own count of FLOPs, and its table against docs/scaling.md."""

from pathlib import Path

import pytest

from benchmarks.scaling import SHAPES, counted_flops, predict, table
from models import ModelConfig
from tracelift.training.memory_plan import Shape


def test_flops_are_those_torch_counts():
    counted, predicted = counted_flops(ModelConfig(97, 64, 160, 3, 4, 2, 16, 64), 48)
    assert counted == predicted


@pytest.mark.parametrize(("name", "billions"), [("1.5 B", 1.544), ("7 B", 7.616), ("32 B", 32.76)])
def test_shapes_have_the_published_parameter_counts(name, billions):
    assert abs(Shape.of(SHAPES[name]).total / 1e9 - billions) < 0.005 * billions


def test_the_table_of_the_document_is_the_one_the_code_makes():
    document = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()
    for name, gpus, lora in (("7 B", 8, False), ("32 B", 1, True)):
        assert table([predict(name, gpus, lora)]).splitlines()[-1] in document, (
            "run python -m benchmarks.scaling and paste its table"
        )


def test_more_devices_never_take_longer_or_more_memory():
    for name in SHAPES:
        for lora in (False, True):
            rows = [predict(name, gpus, lora) for gpus in (1, 8, 64)]
            assert all(
                b["step_s"] < a["step_s"] and b["remote_bytes"] <= a["remote_bytes"]
                for a, b in zip(rows, rows[1:], strict=False)
            )
