"""Every key of the experiment file is understood, and has the default value that the design gives."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from experiment_keys import KEYS, pattern

from align_core.attacks import pixel_fraction
from align_core.errors import InputError
from pipelines.experiment.config import Experiment, load_experiment

# The design's example, and the keys that are missing in it.
FULL = """
name: cifar10-resnet20
warning: Chosen by looking at test results.
seed: 3
output: runs
tracking: sqlite:///elsewhere/mlflow.db
factories: code
register: aligned-resnet20
mlflow_models: all
data:
  classes: 10
  image_size: 32
  resize: 36
  interpolation: bilinear
  channels: 3
  on_bad_image: skip
  on_duplicate: skip
  train:      {kind: npz, path: data/train.npz, take: [0, 3000]}
  validation: {kind: folder, path: data/photos, labels: data/photos.csv, label_names: data/names.csv,
               image_column: file, label_column: class, sample: 100, sample_seed: 1, inspect: bytes}
  test:       {kind: parquet, path: /data/test.parquet, id_column: key, first_class: 1, limit: 500}
models:
  resnet20: {factory: "cifar_models:resnet", args: {depth: 20}, weights: w/resnet20.th, mean: [0.4, 0.5, 0.6],
             std: [0.2, 0.2, 0.2], family: resnet}
  vgg11:    {timm: vgg11_bn, weights: w/vgg11.safetensors}
  rn50:     {timm: resnet50.a1_in1k, weights: pretrained, input_size: 160}
  rn50v1:   {torchvision: resnet50, weights: IMAGENET1K_V1}
  small:    {timm: test_vit, train: {epochs: 10, lr: 2e-3, batch_size: 64, weight_decay: 0, crop: pad4, flip: true,
        warmup: 0.5, layer_decay: 1, freeze: [], batchnorm: update}}
  earlier:  {aligned: ../earlier/models/aligned}
  fetched:  {mlflow: models:/aligned-resnet20/3}
  behind:   {wrap: bits, model: vgg11}
source: resnet20
witnesses: [rn50]
targets: [rn50v1, small]
matrix: []
validation_targets: [vgg11]
groups: {small_ones: [small]}
controls: [label_only, witness, ensemble, aligned_ensemble]
align:
  loss: kl
  temperature: 16
  weight: 0.5
  label_weight: 0.25
  epochs: 2
  batch_size: 64
  accumulate: 2
  workers: 2
  optimizer: {name: adamw, lr: 1e-2, momentum: 0.8, nesterov: false, weight_decay: 1e-3, schedule: constant,
              warmup: 0.5, layer_decay: 0.75}
  clip_grad_norm: 1.0
  label_smoothing: 0.1
  teacher: witnesses
  over_witnesses: max
  inputs: {name: random, eps: 0.1}
  mix: {name: mixup, alpha: 0.5}
  terms: [{name: input_gradient, weight: 0.5}]
  update: {name: sam, rho: 0.1}
  keep: {name: ema, decay: 0.9}
  limit_steps: 70
  freeze: ["layer1.*"]
  early_stop: {by: gain, attack: pgd, every: 20, patience: 2}
  batchnorm: frozen
  augment: {crop: random_resized, flip: false}
  checkpoint_steps: 50
variants:
  t16: {align: {temperature: 16, optimizer: {lr: 1}, early_stop: null}}
  other: {source: earlier, witnesses: [rn50, resnet20]}
  before: {model: fetched}
  swa: {refine: swa, budget: t16}
  pair: {ensemble: [aligned, swa], combine: loss}
contrasts: [[swa, aligned]]
attacks:
  pgd: {method: pgd, eps: 2/255, step: 0.5/255, steps: 10}
  every: {method: vni, eps: 4/255, step: 1/255, steps: 5, objective: margin, random_start: true, momentum: 0.5,
        nesterov: false, kernel: 3, views: [resize_pad, {name: scale, copies: 2}], samples: {name: line, count: 4},
        norm: linf, towards: away, normalized: false, warm_start: 2, warm_stride: 3, step_decay: 0.5,
        step_decay_by: gradient, combine: logits, budget: null}
  another: {method: "torchattack:MIFGSM", eps: 4/255, step: 1/255, steps: 5, norm: l2, towards: next,
        args: {decay: 0.5}}
  theirs: {images: data/theirs.npz, eps: 3/255, norm: linf, towards: away, compare_with: pgd}
corruptions: {jpeg: [1, 3]}
reasons: {sample: 50, attack: pgd}
compute:
  {workers: 3, threads: 2, accelerator: cpu, precision: bf16, chunk: 50, pass: 30, resources: {special: 1}, networks: 3,
   patience: 60.5, cache: /tmp/kept, craft: {workers: 1, gpus: 1.0, resources: {a: 1}},
   evaluate: {workers: 4, gpus: 0.25, resources: {}}}
"""


# The parts of its attack as they are once the file is read: with all their settings.
READ = {
    "views": [
        {"name": "resize_pad", "copies": 1, "probability": 0.5, "smallest": 0.9}, {"name": "scale", "copies": 2}
    ],
    "samples": {"name": "line", "count": 4, "radius": 7.0},
}  # fmt: skip


def leaves(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of every key that has no further keys of the experiment file below it."""
    if path and pattern(".".join(path)) in KEYS:
        yield path, content
    else:
        for key, value in content.items():
            yield from leaves(value, (*path, key))


class TestFull:
    """Every value of the example arrives in the experiment."""

    def load(self, folder: Path) -> Experiment:
        (folder / "e.yaml").write_text(FULL)
        return load_experiment(folder / "e.yaml")

    def test_it_holds_every_key(self) -> None:
        others = {"seeds", "attacks.*.source"}  # in place of `seed`, and with a matrix
        assert {pattern(".".join(path)) for path, _ in leaves(yaml.safe_load(FULL))} == KEYS - others

    def test_seeds_stand_in_place_of_seed(self, tmp_path: Path) -> None:
        content = yaml.safe_load(FULL)
        (tmp_path / "e.yaml").write_text(yaml.safe_dump(content | {"seeds": [4, 2]}))
        with pytest.raises(InputError, match="seeds: it stands in place of `seed`, and both are given; to repeat"):
            load_experiment(tmp_path / "e.yaml")
        del content["seed"]
        for seeds, problem in (([4, 4], "seeds: 4 is named twice"), ([4], "one seed has no spread; write seed: 4")):
            (tmp_path / "e.yaml").write_text(yaml.safe_dump(content | {"seeds": seeds}))
            with pytest.raises(InputError, match=problem):
                load_experiment(tmp_path / "e.yaml")

    @pytest.mark.parametrize("first", [-1, 0.5, True, "a", None])
    def test_a_first_seed_that_is_none_is_said_of_the_key_that_was_written(self, tmp_path: Path, first: Any) -> None:
        content = {key: value for key, value in yaml.safe_load(FULL).items() if key != "seed"}
        (tmp_path / "e.yaml").write_text(yaml.safe_dump(content | {"seeds": [first, 1]}))
        with pytest.raises(InputError) as refused:
            load_experiment(tmp_path / "e.yaml")
        assert ": seeds.0: " in str(refused.value)
        assert "seed: " not in str(refused.value)

    def test_seeds_on_the_command_line_replace_a_seed_that_is_set_to_null(self, tmp_path: Path) -> None:
        (tmp_path / "e.yaml").write_text(FULL)
        experiment = load_experiment(tmp_path / "e.yaml", ["seeds=[4, 2]", "seed=null"])
        assert (experiment.seeds, experiment.seed) == ([4, 2], 4)

    def test_every_value_arrives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "experiments"
        folder.mkdir()
        monkeypatch.chdir(tmp_path)
        experiment = self.load(folder)
        moved = {
            "runs": str(tmp_path / "runs"),  # relative to the current folder, all others to the file
            "code": str(folder / "code"),
            "data/train.npz": str(folder / "data/train.npz"),
            "data/photos": str(folder / "data/photos"),
            "data/theirs.npz": str(folder / "data/theirs.npz"),
            "data/photos.csv": str(folder / "data/photos.csv"),
            "data/names.csv": str(folder / "data/names.csv"),
            "w/resnet20.th": str(folder / "w/resnet20.th"),
            "w/vgg11.safetensors": str(folder / "w/vgg11.safetensors"),
            "../earlier/models/aligned": str(folder / "../earlier/models/aligned"),
        }
        for path, written in leaves(yaml.safe_load(FULL)):
            value: Any = experiment
            for part in path:
                name = {"register": "registered_as", "pass": "pass_rows", "attacks": "all_attacks"}.get(part, part)
                value = value[part] if isinstance(value, dict) else getattr(value, name)
            expected = moved.get(written, written) if isinstance(written, str) else written
            if path[0] == "attacks" and path[-1] in ("eps", "step"):
                expected = pixel_fraction(written)
            elif isinstance(written, str) and isinstance(value, float):
                expected = float(written)  # such as `1e-3`, which PyYAML itself reads as text
            if path[0] == "attacks":
                expected = READ.get(path[-1], expected)
            assert (list(value) if isinstance(value, tuple) else value) == expected, path

    def test_a_variant_keeps_what_it_does_not_change(self, tmp_path: Path) -> None:
        experiment = self.load(tmp_path)
        optimizer = dataclasses.replace(experiment.align.optimizer, lr=1.0)
        changed = dataclasses.replace(experiment.align, temperature=16.0, optimizer=optimizer, early_stop=None)
        assert experiment.variant_align("t16") == changed
        assert experiment.variant_align("other") == experiment.align

    def test_it_is_the_same_after_being_dumped_and_loaded(self, tmp_path: Path) -> None:
        experiment = self.load(tmp_path)
        (tmp_path / "again").mkdir()
        (tmp_path / "again" / "e.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        assert load_experiment(tmp_path / "again" / "e.yaml") == experiment


def test_the_defaults_are_those_of_the_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(FULL)
    needed = ("name", "data", "models", "source", "witnesses", "targets", "attacks")
    content = {key: content[key] for key in needed}
    content["data"] = {key: content["data"][key] for key in ("classes", "image_size", "train", "test")}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    experiment = load_experiment(tmp_path / "e.yaml")
    given = experiment.model_dump(mode="json", exclude={*needed, "all_attacks"})
    assert given == {
        "warning": None,
        "seed": 0,
        "seeds": [],
        "matrix": [],
        "output": str(tmp_path / "runs"),
        "tracking": None,
        "factories": str(tmp_path),
        "register": None,
        "mlflow_models": "aligned",
        "validation_targets": [],
        "groups": {},
        "controls": ["label_only", "witness", "ensemble", "aligned_ensemble"],
        "align": {
            "loss": "kl", "temperature": 4.0, "weight": 1.0, "label_weight": 0.0, "epochs": 1, "batch_size": 128,
            "accumulate": 1, "workers": 1, "clip_grad_norm": None, "batchnorm": "update", "checkpoint_steps": 200,
            "optimizer": {
                "name": "sgd", "lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4,
                "schedule": "cosine", "warmup": 0.0, "layer_decay": 1.0,
            },
            "label_smoothing": 0.0, "teacher": "witnesses", "over_witnesses": "mean", "inputs": "clean", "mix": "none",
            "terms": [], "update": "plain", "keep": "last", "limit_steps": None, "freeze": [],
            "early_stop": None,
            "augment": {"crop": "pad4", "flip": True},
        },
        "variants": {},
        "contrasts": [],
        "corruptions": {},
        "reasons": None,
        "compute": {
            "workers": 2, "threads": 1, "accelerator": "auto", "precision": "fp32", "chunk": 100, "pass": None,
            "resources": {},
            "networks": 16, "cache": None, "patience": 300, "craft": {"workers": None, "gpus": None, "resources": None},
            "evaluate": {"workers": None, "gpus": None, "resources": None},
        },
    }  # fmt: skip
    assert experiment.data.on_bad_image == "stop"
    assert experiment.data.validation is None
    assert set(experiment.image_sets()) == {"train", "test"}
