"""The file written for an experiment loads to the same experiment, and contains no credentials."""

import json
from pathlib import Path

import pytest
import yaml
from digits_experiment import experiment as content_of

from pipelines.experiment.config import load_experiment
from pipelines.experiment.written import as_yaml
from pipelines.recipes import __file__ as recipes

# Text that YAML would read as something else.
WORDS = ["1e-3", "1e5", "1.", "2", "0x1F", "1_0", "null", "yes", "true", "2026-11-22"]
GIVEN = content_of(Path())
MODEL = {"factory": "mine:net", "weights": "net.safetensors"}
CHANGES = {
    "as it is": {},
    "every setting of the alignment": {
        "align": {
            "temperature": 16, "weight": 0.1, "label_weight": 1e-5, "epochs": 3, "batch_size": 62, "workers": 2,
            "optimizer": {"name": "sgd", "lr": 1e-7, "momentum": 0.8, "nesterov": False, "weight_decay": 0},
            "clip_grad_norm": 1e-3, "batchnorm": "frozen", "augment": {"crop": "random_resized", "flip": True},
            "checkpoint_steps": 7,
        },
    },
    "a variant that undoes a setting": {
        "align": {"clip_grad_norm": 1.0},
        "variants": {"unclipped": {"align": {"clip_grad_norm": None}}, "same": {}, "other": {"witnesses": ["cnn_b"]}},
    },
    "attacks": {
        "attacks": {
            "third": {"method": "vni", "eps": "1/3", "objective": "margin", "random_start": True, "views": ["sizes"]},
            "equal": {"method": "bsr", "eps": "8/255", "budget": 50, "kernel": "auto"},
            "round": {"method": "mi", "eps": 2.5, "norm": "l2"},
            "half-step": {"method": "pgd", "eps": 0.1, "step": "0.5/255", "steps": 7},
            "plain": {"method": "mi", "eps": "8/255", "momentum": 0},
            "far": {"method": "fgsm", "eps": 1},
        },
    },
    "no controls": {"controls": []},
    "a matrix": {"matrix": ["cnn_a", "cnn_c", "mlp"], "source": None, "targets": None, "variants": {}},
    "a matrix without witnesses": {
        "matrix": ["cnn_a", "cnn_c"], "source": None, "targets": None, "variants": {}, "witnesses": [],
    },
    "several seeds": {"seeds": [3, 4]},
    "validation": {
        "data": GIVEN["data"] | {"validation": {"kind": "npz", "path": "sets/v.npz", "limit": 9}},
        "validation_targets": ["cnn_d"],
    },
    "how it computes": {
        "seed": 7,
        "compute": {
            "workers": 5, "threads": 3, "accelerator": "cpu", "precision": "bf16", "chunk": 9,
            "resources": {"special": 0.5},
        },
    },
    "where it goes": {"output": "there", "tracking": "http://host:5000", "factories": "../code"},
    "an object store": {"output": "s3://bucket/runs", "tracking": "http://host:5000"},
    "letters of every language": {"output": "Bücher/猫", "factories": "a  path " + "with many blanks " * 9},
    "models": {
        "models": GIVEN["models"] | {
            "rn50": {"timm": "resnet50.a1_in1k", "weights": "pretrained", "input_size": 160},
            "rn50v1": {"torchvision": "resnet50", "weights": "IMAGENET1K_V1", "family": "resnet"},
            "earlier": {"aligned": "../earlier/models/aligned"},
            "grey": MODEL | {"mean": [0.5], "std": [0.25]},
        },
    },
    "arguments that are null or hold nothing": {
        "models": GIVEN["models"] | {
            "net": MODEL | {"args": {"norm": None, "extra": {}, "blocks": [None, {}], "more": {"b": None}}},
        },
    },
    "arguments that look like something else": {
        "models": GIVEN["models"] | {"net": MODEL | {"args": {word: word for word in WORDS}}},
    },
    "names that look like something else": {"variants": {w: {} for w in WORDS}, "name": WORDS[0], "targets": ["mlp"]},
}  # fmt: skip


def load(folder, **changes):
    """The digits experiment with `changes`. It is written as JSON, where text stays text."""
    folder.mkdir(exist_ok=True)
    (folder / "e.yaml").write_text(json.dumps(content_of(folder, **changes)), encoding="utf-8")
    return load_experiment(folder / "e.yaml")


def again(folder, experiment):
    """The experiment loaded from the file that is written for it, in a folder of its own."""
    folder.mkdir(parents=True)
    (folder / "e.yaml").write_text(as_yaml(experiment), encoding="utf-8")
    return load_experiment(folder / "e.yaml")


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_written_file_loads_to_the_same_experiment(tmp_path, monkeypatch, changes):
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    experiment = load(tmp_path / "first", **changes)
    monkeypatch.chdir("/")
    assert again(tmp_path / "else" / "where", experiment) == experiment


@pytest.mark.parametrize("recipe", ["demo.yaml", "cifar10.yaml", "cifar10-sweep.yaml"])
def test_so_do_the_files_of_the_recipes(tmp_path, monkeypatch, recipe):
    monkeypatch.setenv("WITNESS_CIFAR10", "/data/cifar10")
    experiment = load_experiment(Path(recipes).parent / recipe)
    assert again(tmp_path / "again", experiment) == experiment


def test_it_contains_every_setting_that_took_effect(tmp_path):
    written = yaml.safe_load(as_yaml(load(tmp_path)))
    assert written["align"]["optimizer"] == {
        "name": "adamw", "lr": 2e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
        "schedule": "cosine", "warmup": 0.0, "layer_decay": 1.0,
    }  # fmt: skip
    assert written["controls"] == ["label_only", "witness", "ensemble", "aligned_ensemble"]
    assert written["attacks"]["pgd"]["eps"] == 12 / 255
    assert written["compute"]["precision"] == "fp32"
    assert written["seed"] == 0


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("http://host:5000/path", "http://host:5000/path"),
        ("http://me:secret@host:5000", None),
        ("postgresql://host/db?password=secret", None),
        ("sqlite:////tmp/mlflow.db", "sqlite:////tmp/mlflow.db"),
    ],
)
def test_a_tracking_store_with_credentials_is_left_out(tmp_path, uri, kept):
    experiment = load(tmp_path, tracking=uri)
    assert "secret" not in as_yaml(experiment)
    assert again(tmp_path / "again", experiment).tracking == kept


def test_credentials_of_the_output_are_left_out(tmp_path):
    text = as_yaml(load(tmp_path, output="s3://key:secret@bucket/runs?token=secret"))
    assert "secret" not in text
    assert "bucket/runs" in text
