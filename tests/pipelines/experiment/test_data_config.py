"""The section `data` of an experiment: classes as a number or a file, and keys that exclude each other."""

from pathlib import Path
from typing import Any

import pytest

from align_core.errors import InputError
from pipelines.experiment.config import Experiment, load_experiment
from pipelines.experiment.written import as_yaml

TEXT = """
name: x
data:
  classes: {classes}
  image_size: 8
  train: {{kind: npz, path: a.npz}}
  test: {{kind: npz, path: b.npz{more}}}
models: {{a: {{timm: a, train: {{}}}}, b: {{timm: a, train: {{}}}}, c: {{timm: a, train: {{}}}}}}
source: a
witnesses: [b]
targets: [c]
attacks: {{x: {{method: fgsm, eps: 8/255}}}}
"""


def load(folder: Path, classes: Any = 10, more: str = "") -> Experiment:
    (folder / "x.yaml").write_text(TEXT.format(classes=classes, more=more))
    return load_experiment(folder / "x.yaml")


@pytest.mark.parametrize("classes", ["10", "10.0", "1e1"])
def test_a_number_of_classes(tmp_path: Path, classes: str) -> None:
    data = load(tmp_path, classes).data
    assert (data.classes, data.classes_count, data.class_names) == (10, 10, None)


def test_a_file_of_classes_lies_beside_the_experiment_and_is_written_with_it(tmp_path: Path) -> None:
    (tmp_path / "wnids.txt").write_text("n02\nn01\nn03\n")
    experiment = load(tmp_path, "wnids.txt")
    assert experiment.data.classes == str(tmp_path / "wnids.txt")
    assert (experiment.data.classes_count, experiment.data.class_names) == (3, ("n02", "n01", "n03"))
    (tmp_path / "again.yaml").write_text(as_yaml(experiment))
    assert load_experiment(tmp_path / "again.yaml").data == experiment.data


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        ("1", "data.classes: .*at least 2 and at most 1,000,000, not 1"),
        ("-3", "data.classes: .*at least 2 and at most 1,000,000, not -3"),
        ("2.5", "data.classes: .*a number of classes, or the path of a file"),
        ("'10'", "data.classes: .*a number of classes, .* not the text '10'"),
        ("true", "data.classes: .*a number of classes, or the path of a file"),
        ("[a, b]", "data.classes: .*a number of classes, or the path of a file"),
        (".inf", "data.classes: .*a number of classes, or the path of a file"),
        (".nan", "data.classes: .*a number of classes, or the path of a file"),
        ("nowhere.txt", r"x.yaml: data.classes: .*nowhere.txt: cannot be read .*there is no such file"),
        (".", "x.yaml: data.classes: .*it is no file but a folder"),
        ("twice.txt", r"data.classes: .*twice.txt, line 2: the class 'a' is named in line 1 already"),
        ("x.yaml", r"data.classes: .*x.yaml, line 1: is empty"),
    ],
)
def test_classes_that_are_refused(tmp_path: Path, classes: str, complaint: str) -> None:
    (tmp_path / "twice.txt").write_text("a\na\n")
    with pytest.raises(InputError, match=complaint):
        load(tmp_path, classes)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (", sample: 0", "data.test: `sample` must be at least 1"),
        (", sample: 5, limit: 5", "data.test: `sample` draws images from all classes, `limit` takes the first ones"),
        (", sample_seed: 3", "data.test: `sample_seed` applies to `sample` only"),
        (", sampel: 3", "data.test.sampel: unknown key; did you mean 'sample'"),
        (", sample: many", "data.test.sample: must be a whole number"),
    ],
)
def test_samples_that_are_refused(tmp_path: Path, more: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        load(tmp_path, more=more)


@pytest.mark.parametrize(("key", "value"), [("channels", 2), ("channels", "rgb"), ("on_duplicate", "keep")])
def test_other_keys_that_are_refused(tmp_path: Path, key: str, value: Any) -> None:
    (tmp_path / "x.yaml").write_text(TEXT.format(classes=f"10\n  {key}: {value}", more=""))
    with pytest.raises(InputError, match=f"data.{key}: must be .*, not the (text|number) {value!r}"):
        load_experiment(tmp_path / "x.yaml")
