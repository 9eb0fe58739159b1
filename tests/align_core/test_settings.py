"""Settings take values of their own type alone, from Python as from a file, and finite numbers alone."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from align_core.align_config import AlignConfig, AugmentConfig, OptimizerConfig
from align_core.images import ImageSetConfig
from align_core.model_config import ModelConfig, TrainConfig

WEIGHTS = {"factory": "a:b", "weights": "w"}
NPZ = {"kind": "npz", "path": "x"}

# Settings that are refused both from Python and through pydantic, and how the message ends.
REFUSED: list[tuple[type, dict[str, Any], str]] = [
    (AlignConfig, {"temperature": math.nan}, "must be a finite number of at most 3e38, not nan"),
    (AlignConfig, {"temperature": math.inf}, "must be a finite number of at most 3e38, not inf"),
    (AlignConfig, {"temperature": 1e39}, "must be a finite number of at most 3e38, not 1e+39"),
    (AlignConfig, {"temperature": True}, "must be a number, not true"),
    (AlignConfig, {"temperature": "4"}, "must be a number, not the text '4'; leave the quotes out"),
    (AlignConfig, {"weight": "a"}, "must be a number, not the text 'a'"),
    (AlignConfig, {"epochs": 1.5}, "must be a whole number, not the number 1.5"),
    (AlignConfig, {"epochs": [1]}, "must be a whole number, not a list"),
    (AlignConfig, {"epochs": 10**12}, "must be at most 100,000, and is 1,000,000,000,000: no training would end"),
    (AlignConfig, {"batch_size": 10**9}, "batch_size must be at most 1,000,000, and is 1,000,000,000"),
    (AlignConfig, {"clip_grad_norm": math.inf}, "must be a finite number"),
    (OptimizerConfig, {"lr": math.inf}, "must be a finite number"),
    (OptimizerConfig, {"nesterov": 1}, "must be true or false, not the number 1"),
    (AugmentConfig, {"flip": "no"}, "must be true or false, not the text 'no'"),
    (TrainConfig, {"epochs": 10**12}, "epochs must be at most 100,000"),
    (TrainConfig, {"lr": math.nan}, "must be a finite number"),
    (ImageSetConfig, {**NPZ, "limit": True}, "must be a whole number, not true"),
    (ImageSetConfig, {**NPZ, "limit": 10**30}, "must be a whole number below 2^63"),
    (ImageSetConfig, {**NPZ, "take": (0, "5")}, "must be a whole number, not the text '5'; leave the quotes out"),
    (ModelConfig, {**WEIGHTS, "mean": (123.675, 116.28, 103.53), "std": (1.0, 1.0, 1.0)},
     "mean is of pixels in [0, 1], not 0 to 255, so 123.675 is too large: did you mean 0.485?"),
    (ModelConfig, {**WEIGHTS, "mean": (0.5,), "std": (57.375,)},
     "std is of pixels in [0, 1], not 0 to 255, so 57.375 is too large: did you mean 0.225?"),
    (ModelConfig, {**WEIGHTS, "mean": (-0.5,), "std": (0.5,)}, "it cannot be -0.5"),
    (ModelConfig, {**WEIGHTS, "mean": (0.5, 0.5), "std": (0.5, 0.5)}, "for each channel, 1 or 3, not 2 and 2"),
    (ModelConfig, {**WEIGHTS, "mean": (0.5,), "std": (0.5, 0.5, 0.5)}, "for each channel, 1 or 3, not 1 and 3"),
    (ModelConfig, {**WEIGHTS, "mean": (), "std": ()}, "for each channel, 1 or 3, not 0 and 0"),
    (ModelConfig, {**WEIGHTS, "mean": (0.5, True, 0.5), "std": (0.5, 0.5, 0.5)}, "must be a number, not true"),
    (ModelConfig, {**WEIGHTS, "input_size": 10**9}, "input_size must be at most 4096 pixels, not 1000000000"),
    (ModelConfig, {**WEIGHTS, "args": {"a": [math.nan]}}, "args must be plain values and finite numbers"),
    (ModelConfig, {"factory": ":net", "weights": "w"}, "a factory must be written as module:callable, not ':net'"),
    (ModelConfig, {"timm": 50, "weights": "w"}, "must be text, not the number 50; put it in quotes: '50'"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings", "message"), REFUSED)
def test_a_setting_of_the_wrong_type_or_size_is_refused(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**settings)
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    with pytest.raises(ValidationError, match=re.escape(message)):
        TypeAdapter(kind).validate_python(lists)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (
            ImageSetConfig,
            {"kind": "npz", "path": b"x"},
            "path must be text, not a value of type bytes",
        ),
        (OptimizerConfig, {"name": "adam"}, "name must be one of sgd, adamw, not the text 'adam'"),
        (AlignConfig, {"optimizer": {"lr": 1.0}}, "optimizer must be of type OptimizerConfig, not keys and values"),
        (AlignConfig, {"loss": 3}, "loss must be text, a list or keys and values, not the number 3"),
        (AlignConfig, {"over_witnesses": (1.0, 2.0)}, "over_witnesses must be text or a list, not a tuple"),
        (AlignConfig, {"freeze": ("a",)}, "freeze must be of type list, not a tuple"),
        (AlignConfig, {"epochs": 1.0}, "epochs must be a whole number, not the number 1.0"),
        (ImageSetConfig, {**NPZ, "take": (0, 1, 2)}, "take must be a tuple of 2 values"),
    ],
)
def test_python_is_told_what_pydantic_would_turn_into_something_else(
    kind: type, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**settings)


def test_what_is_meant_is_taken() -> None:
    assert AlignConfig(temperature=1e30, clip_grad_norm=None).temperature == 1e30
    assert AlignConfig(temperature=4, weight=np.float32(0.5)).weight == 0.5
    assert TypeAdapter(AlignConfig).validate_python({"epochs": 1e1, "temperature": 4}).epochs == 10
    assert ModelConfig(**WEIGHTS, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1.0, 1.0)).std == (1 / 255, 1.0, 1.0)
    with pytest.raises(ValidationError, match="Unexpected keyword argument"):
        TypeAdapter(OptimizerConfig).validate_python({"learning_rate": 1})


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        (ImageSetConfig, {"kind": "folder", "path": "a/b"}, "path"),
        (ImageSetConfig, {"kind": "folder", "path": "a", "labels": "a/b"}, "labels"),
        (ModelConfig, {"factory": "a:b", "weights": "a/b"}, "weights"),
        (ModelConfig, {"aligned": "a/b"}, "aligned"),
    ],
)
def test_a_path_is_taken_for_its_text(kind: type, settings: dict[str, Any], name: str) -> None:
    as_path = kind(**settings | {name: Path(settings[name])})
    assert getattr(as_path, name) == "a/b" and type(getattr(as_path, name)) is str
    assert as_path == kind(**settings)
    read = TypeAdapter(kind).validate_python(settings | {name: Path(settings[name])})
    assert read == as_path
