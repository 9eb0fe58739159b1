"""A flag with a value that is given twice is refused: otherwise the last one would count, without a word."""

import re

import pytest

from align_core.errors import InputError
from align_core.images import Fit, ImageSetConfig
from pipelines.cli import main
from pipelines.cli.parser import command_line
from pipelines.compute.images import opened, read_as_inspected

RUN, TUNE = ["run", "e.yaml"], ["tune", "e.yaml", "--space", "full"]


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ([*RUN, "--output", "a", "--output", "b"], "--output"),
        ([*RUN, "--output=a", "--out", "a"], "--output"),
        ([*RUN, "--address", "a", "--address", "b"], "--address"),
        ([*TUNE, "--space", "temperature"], "--space"),
        ([*TUNE, "--samples", "3", "--samples", "4"], "--samples"),
        ([*TUNE, "--attack", "a", "--attack", "a"], "--attack"),
        (["verify", "e.yaml", "--seed", "1", "--seed", "2"], "--seed"),
        (["init", "--source", "a", "--source", "b"], "--source"),
        (["ui", "e.yaml", "--port", "1", "--port", "2"], "--port"),
    ],
)
def test_a_flag_that_is_given_twice(arguments: list[str], flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "is given twice; give it once" in said and f"error: {flag[:5]}" in said


def test_a_key_that_is_set_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "e.yaml", "--set", "seed=1", "--set", "name=x", "--set", "seed=2"])
    assert ended.value.code == 2
    assert "--set seed: is given twice; give it once" in capsys.readouterr().err


def test_flags_that_may_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "nowhere.yaml", "--set", "seed=1", "--set", "name=x", "--quiet", "--quiet"]) == 2
    assert "nowhere.yaml: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("seed", ["-1", "1.5", "x", "9" * 5000])
def test_a_seed_that_is_none(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", "e.yaml", f"--seed={seed}"])
    assert ended.value.code == 2
    assert "is no whole number from 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [RUN, ["align", "e.yaml"], ["craft", "e.yaml"], ["evaluate", "e.yaml"], TUNE, ["export", "e.yaml", "--png", "p"]],
)
def test_the_flag_that_an_exchanged_image_is_answered_with(command: list[str]) -> None:
    images = opened(ImageSetConfig(kind="digits"), Fit(8), 1)
    with pytest.raises(InputError) as refusal:
        read_as_inspected("data.train", images, ["00000"], ["another hash"])
    flags = re.findall("--[a-z-]+", str(refusal.value))
    assert flags == ["--rehash"] and command_line().parse_args([*command, *flags]).rehash
