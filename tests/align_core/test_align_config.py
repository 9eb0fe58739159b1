"""Settings of an alignment and of its optimiser that are refused."""

from typing import Any

import pytest

from align_core.align_config import AlignConfig, OptimizerConfig


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"loss": "kldiv"}, "there is no alignment loss 'kldiv'; choose from kl"),
        ({"temperature": 0.0}, "temperature"),
        ({"weight": 0.0, "label_weight": 0.0}, "not both 0"),
        ({"weight": -1.0, "label_weight": 2.0}, "0 or more"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": 0}, "at least 1"),
        ({"checkpoint_steps": 0}, "at least 1"),
        ({"batch_size": 9, "workers": 2}, "multiple of workers"),
        ({"clip_grad_norm": 0.0}, "clip_grad_norm"),
    ],
)
def test_alignment_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        AlignConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"lr": 0.0}, "lr must be above 0"),
        ({"momentum": 1.0}, "momentum"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov needs a momentum"),
    ],
)
def test_optimiser_settings_that_make_no_sense(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OptimizerConfig(**settings)
