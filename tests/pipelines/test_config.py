"""Every key of the experiment file is understood, has the default that the design gives, and reaches what it names."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from align_core.attacks import pixel_fraction
from align_core.errors import InputError
from align_core.models import Classifier, build
from align_core.weights import hash_weights, read_weights
from pipelines.cluster import worker_of, workers_that_fit
from pipelines.config import Experiment, known_keys, load_experiment
from pipelines.plan import Making, Plan
from pipelines.run import Request, make_plan
from pipelines.surrogates import Surrogate, contrasts_of, surrogates_of
from pipelines.tables import target_relation
from pipelines.tracking import tracking_uri

# The design's example, with the keys that it leaves out.
FULL = """
name: cifar10-resnet20
seed: 3
output: runs
tracking: sqlite:///elsewhere/mlflow.db
data:
  classes: 10
  image_size: 32
  on_bad_image: skip
  train:      {kind: npz, path: data/train.npz, take: [0, 3000]}
  validation: {kind: folder, path: data/photos, labels: data/photos.csv}
  test:       {kind: npz, path: /data/test.npz, limit: 500}
models:
  resnet20: {factory: "cifar_models:resnet", args: {depth: 20}, weights: w/resnet20.th, mean: [0.4, 0.5, 0.6],
             std: [0.2, 0.2, 0.2], family: resnet}
  vgg11:    {timm: vgg11_bn, weights: w/vgg11.safetensors}
  rn50:     {timm: resnet50.a1_in1k, weights: pretrained, input_size: 160}
  rn50v1:   {torchvision: resnet50, weights: IMAGENET1K_V1}
  small:    {timm: test_vit, train: {epochs: 10, lr: 2e-3, batch_size: 64, weight_decay: 0, crop: pad4, flip: true}}
  earlier:  {aligned: ../earlier/models/aligned}
source: resnet20
witnesses: [rn50]
targets: [rn50v1, small]
validation_targets: [vgg11]
controls: [label_only, witness, ensemble, aligned_ensemble]
align:
  loss: kl
  temperature: 16
  weight: 0.5
  label_weight: 0.25
  epochs: 2
  batch_size: 64
  workers: 2
  optimizer: {name: adamw, lr: 1e-2, momentum: 0.8, nesterov: false, weight_decay: 1e-3}
  clip_grad_norm: 1.0
  batchnorm: frozen
  augment: {crop: random_resized, flip: false}
  checkpoint_steps: 50
variants:
  t16: {align: {temperature: 16, optimizer: {lr: 1}}}
  other: {source: earlier, witnesses: [rn50, resnet20]}
attacks:
  pgd: {method: pgd, eps: 2/255, step: 0.5/255, steps: 10}
  all: {method: vni, eps: 4/255, step: 1/255, steps: 5, objective: margin, random_start: true, momentum: 0.5,
        nesterov: false, diversity: 0.7, diversity_size: 0.8, kernel: 3, copies: 2, neighbours: 4, neighbourhood: 2}
compute: {workers: 3, threads: 2, accelerator: cpu, precision: bf16, chunk: 50, resources: {special: 1}}
"""


def keys(place: tuple[str, ...] = ()) -> Iterator[str]:
    """Every dotted key that an experiment file may hold; `*` stands for a name of the user's."""
    for key in known_keys(Experiment, place):
        at = (*place, key, "*") if key in ("models", "variants", "attacks") else (*place, key)
        below = list(keys(at))
        yield from below or [pattern(".".join(at))]


def pattern(key: str) -> str:
    """The key with names of the user's, and the roles of image sets, as `*`."""
    parts = key.split(".")
    if parts[0] in ("models", "variants", "attacks") or (parts[0] == "data" and len(parts) > 2):
        parts[1:2] = ["*"]
    return ".".join(parts)


KEYS = set(keys())


def leaves(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(place, value) of every key that holds no further keys of the experiment file."""
    if place and pattern(".".join(place)) in KEYS:
        yield place, content
    else:
        for key, value in content.items():
            yield from leaves(value, (*place, key))


class TestFull:
    """The whole example is taken as it is written."""

    def load(self, folder: Path) -> Experiment:
        (folder / "e.yaml").write_text(FULL)
        return load_experiment(folder / "e.yaml")

    def test_it_holds_every_key(self) -> None:
        assert {pattern(".".join(place)) for place, _ in leaves(yaml.safe_load(FULL))} == KEYS

    def test_every_value_arrives(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "experiments"
        folder.mkdir()
        monkeypatch.chdir(tmp_path)
        experiment = self.load(folder)
        moved = {
            "output": str(tmp_path / "runs"),  # relative to the current folder, all others to the file
            "data/train.npz": str(folder / "data/train.npz"),
            "data/photos": str(folder / "data/photos"),
            "data/photos.csv": str(folder / "data/photos.csv"),
            "w/resnet20.th": str(folder / "w/resnet20.th"),
            "w/vgg11.safetensors": str(folder / "w/vgg11.safetensors"),
            "../earlier/models/aligned": str(folder / "../earlier/models/aligned"),
            "runs": str(tmp_path / "runs"),
        }
        for place, written in leaves(yaml.safe_load(FULL)):
            value: Any = experiment
            for part in place:
                value = value[part] if isinstance(value, dict) else getattr(value, part)
            expected = moved.get(written, written) if isinstance(written, str) else written
            if place[0] == "attacks" and place[-1] in ("eps", "step"):
                expected = pixel_fraction(written)
            elif isinstance(written, str) and isinstance(value, float):
                expected = float(written)  # `1e-3`, which PyYAML itself takes for a word
            assert (list(value) if isinstance(value, tuple) else value) == expected, place

    def test_a_variant_keeps_what_it_does_not_change(self, tmp_path: Path) -> None:
        experiment = self.load(tmp_path)
        changed = dataclasses.replace(
            experiment.align, temperature=16.0, optimizer=dataclasses.replace(experiment.align.optimizer, lr=1.0)
        )
        assert experiment.variant_align("t16") == changed
        assert experiment.variant_align("other") == experiment.align

    def test_as_it_is_written_out_it_is_the_same_again(self, tmp_path: Path) -> None:
        experiment = self.load(tmp_path)
        (tmp_path / "again").mkdir()
        (tmp_path / "again" / "e.yaml").write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
        assert load_experiment(tmp_path / "again" / "e.yaml") == experiment


def test_what_is_not_given_is_as_the_design_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = yaml.safe_load(FULL)
    needed = ("name", "data", "models", "source", "witnesses", "targets", "attacks")
    content = {key: content[key] for key in needed}
    content["data"] = {key: content["data"][key] for key in ("classes", "image_size", "train", "test")}
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(content))
    experiment = load_experiment(tmp_path / "e.yaml")
    given = experiment.model_dump(mode="json", exclude=set(needed))
    assert given == {
        "seed": 0,
        "output": str(tmp_path / "runs"),
        "tracking": None,
        "validation_targets": [],
        "controls": ["label_only", "witness", "ensemble", "aligned_ensemble"],
        "align": {
            "loss": "kl", "temperature": 4.0, "weight": 1.0, "label_weight": 0.0, "epochs": 1, "batch_size": 128,
            "workers": 1, "clip_grad_norm": None, "batchnorm": "update", "checkpoint_steps": 200,
            "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4},
            "augment": {"crop": "pad4", "flip": True},
        },
        "variants": {},
        "compute": {
            "workers": 2, "threads": 1, "accelerator": "auto", "precision": "fp32", "chunk": 100, "resources": {},
        },
    }  # fmt: skip
    assert experiment.data.on_bad_image == "stop"
    assert experiment.data.validation is None
    assert set(experiment.image_sets()) == {"train", "test"}


NETS = """
from torch import nn

def net(width=4, out=3):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, out))

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
"""


def content() -> dict[str, Any]:
    def model(name: str, family: str) -> dict[str, Any]:
        return {"factory": "nets_of_any_size:net", "weights": f"{name}.safetensors", "family": family}

    npz = {"kind": "npz", "path": "images.npz"}
    return {
        "name": "tiny",
        "data": {
            "classes": 3, "image_size": 8, "train": {**npz, "take": [0, 8]}, "test": {**npz, "take": [8, 16]},
        },
        "models": {
            "a": model("a", "plain"), "b": model("b", "plain"), "c": model("c", "other"), "d": model("d", "other"),
            "e": {"factory": "nets_of_any_size:net", "args": {"width": 5}, "train": {}},
        },
        "source": "a", "witnesses": ["b"], "targets": ["c", "e"], "controls": [],
        "variants": {"v": {}},
        "attacks": {"x": {"method": "vni", "eps": "8/255"}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small experiment with a model of its own for every role, and what the keys below lead to."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "nets_of_any_size.py").write_text(NETS)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content()))
    images = np.random.default_rng(0).integers(0, 256, (26, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images[:16], labels=np.arange(16) % 3)
    np.savez(folder / "others.npz", images=images[16:19], labels=np.arange(3))
    (folder / "photos" / "cat").mkdir(parents=True)
    for index in range(2):
        Image.fromarray(images[20 + index]).save(folder / "photos" / "cat" / f"{index}.png")
    (folder / "photos" / "cat" / "broken.png").write_bytes(b"")
    (folder / "photos.csv").write_text("path,label\ncat/1.png,2\n")
    (folder / "aligned").mkdir()
    for seed, name in enumerate(("a", "b", "c", "d", "aligned/model")):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Identity(), torch.nn.Identity(), torch.nn.Linear(4, 3)
        )
        save_file(net.state_dict(), folder / f"{name}.safetensors")
    card = {"model": {"factory": "nets_of_any_size:net", "weights": "gone.safetensors", "family": "plain"}}
    (folder / "aligned" / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture
def plan(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Plan]:
    """Makes the plan of the small experiment with some keys set, `;` between them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return lambda settings: make_plan(Request(folder / "tiny.yaml", settings.split(";"), quiet=True))


def built(plan: Plan, name: str) -> Classifier:
    return build(plan.networks[name].config, plan.loader().classes, plan.inspected.shape[0])


def net(plan: Plan, name: str = "new") -> Any:
    return built(plan, name).net


def holds(plan: Plan, name: str, weights: str) -> bool:
    """Whether a model's weights are those of a file beside the experiment."""
    file = Path(str(plan.experiment.data.train.path)).parent / weights
    return plan.networks[name].digest == hash_weights(read_weights(file))


def making(plan: Plan, name: str) -> Making:
    return next(making for making in (*plan.trainings(), *plan.alignments()) if making.name == name)


def ids(plan: Plan, role: str) -> list[str]:
    return plan.inspected.manifests[role].ids


def attack(plan: Plan) -> dict[str, Any]:
    inputs: dict[str, Any] = plan.adversarial(plan.by_name["aligned"], "x").inputs["attack"]
    return inputs


ALIGNED = ("aligned", "v")

# What is set, who tells what came of it, and what he tells.
REACHES: list[tuple[str, Callable[[Plan], Any], Any]] = [
    ("name=other", lambda p: Path(p.store.location).name, "other"),
    ("seed=5", lambda p: (making(p, "v").inputs["seed"], p.adversarial(p.by_name["v"], "x").inputs["seed"]), (5, 5)),
    ("output=there", lambda p: Path(p.store.location) == Path.cwd() / "there" / "tiny", True),
    ("tracking=http://host:1", lambda p: tracking_uri(p.experiment), "http://host:1"),
    ("data.classes=3", lambda p: p.loader().classes, 3),
    ("data.image_size=6", lambda p: p.inspected.shape, (3, 6, 6)),
    (
        "data.on_bad_image=skip;data.validation={kind: folder, path: photos}",
        lambda p: ids(p, "validation"), ["cat/0.png", "cat/1.png"],
    ),
    ("data.test.kind=folder;data.test.path=photos;data.test.take=[1, 2]", lambda p: ids(p, "test"), ["cat/1.png"]),
    ("data.test.path=others.npz;data.test.take=null", lambda p: ids(p, "test"), ["00000", "00001", "00002"]),
    (
        "data.test.labels=photos.csv;data.test.kind=folder;data.test.path=photos;data.test.take=null",
        lambda p: p.inspected.manifests["test"].labels.tolist(), [2],
    ),
    ("data.train.take=[2, 4]", lambda p: ids(p, "train"), ["00002", "00003"]),
    ("data.train.limit=1", lambda p: ids(p, "train"), ["00000"]),
    ("models.new.timm=test_vit;models.new.train={}", lambda p: type(net(p)).__name__, "VisionTransformer"),
    ("models.new.torchvision=squeezenet1_1;models.new.train={}", lambda p: type(net(p)).__name__, "SqueezeNet"),
    ("models.new.factory=nets_of_any_size:flat;models.new.train={}", lambda p: type(net(p)[0]).__name__, "Flatten"),
    ("models.new.aligned=aligned", lambda p: holds(p, "new", "aligned/model.safetensors"), True),
    ("models.e.args={width: 7}", lambda p: net(p, "e")[0].out_channels, 7),
    ("models.a.weights=d.safetensors", lambda p: holds(p, "a", "d.safetensors"), True),
    ("models.e.train.epochs=7", lambda p: making(p, "e").config.epochs, 7),
    ("models.e.train.lr=7", lambda p: making(p, "e").config.optimizer.lr, 7),
    ("models.e.train.batch_size=7", lambda p: making(p, "e").config.batch_size, 7),
    ("models.e.train.weight_decay=7", lambda p: making(p, "e").config.optimizer.weight_decay, 7),
    ("models.e.train.crop=random_resized", lambda p: making(p, "e").config.augment.crop, "random_resized"),
    ("models.e.train.flip=true", lambda p: making(p, "e").config.augment.flip, True),
    ("models.a.mean=[1, 2, 3];models.a.std=[1, 1, 1]", lambda p: built(p, "a").mean_C11.flatten().tolist(), [1, 2, 3]),
    ("models.a.std=[4, 5, 6];models.a.mean=[1, 1, 1]", lambda p: built(p, "a").std_C11.flatten().tolist(), [4, 5, 6]),
    ("models.a.input_size=5", lambda p: built(p, "a").input_size, 5),
    ("models.d.family=plain;models.d.args={out: 3}", lambda p: target_relation(p, "a", "d"), "same_family"),
    ("source=d", lambda p: [making(p, name).start for name in ALIGNED], ["d", "d"]),
    ("witnesses=[b, d]", lambda p: [making(p, name).witnesses for name in ALIGNED], [("b", "d")] * 2),
    ("targets=[d]", lambda p: {cell.target for cell in p.cells()}, {"@self", "d"}),
    ("validation_targets=[d]", lambda p: p.experiment.validation_targets, ["d"]),
    ("controls=[witness]", lambda p: list(p.by_name), ["source", "aligned", "witness", "v"]),
    *(
        (f"align.{key}={value}", lambda p, key=key: [getattr(making(p, n).config, key) for n in ALIGNED], [value] * 2)
        for key, value in [
            ("temperature", 7), ("weight", 7), ("label_weight", 7), ("epochs", 7), ("batch_size", 7), ("workers", 2),
            ("clip_grad_norm", 7), ("batchnorm", "frozen"), ("checkpoint_steps", 7), ("loss", "kl"),
        ]
    ),
    *(
        (f"align.optimizer.{key}={value}", lambda p, key=key: getattr(making(p, "v").config.optimizer, key), value)
        for key, value in [("name", "adamw"), ("lr", 7), ("momentum", 0.7), ("nesterov", False), ("weight_decay", 7)]
    ),
    *(
        (f"align.augment.{key}={value}", lambda p, key=key: getattr(making(p, "v").config.augment, key), value)
        for key, value in [("crop", "random_resized"), ("flip", False)]
    ),
    ("variants.v.source=d", lambda p: [making(p, name).start for name in ALIGNED], ["a", "d"]),
    ("variants.v.witnesses=[d]", lambda p: [making(p, name).witnesses for name in ALIGNED], [("b",), ("d",)]),
    ("variants.v.align={weight: 7}", lambda p: [making(p, name).config.weight for name in ALIGNED], [1, 7]),
    ("attacks.x.method=ni", lambda p: [attack(p)[key] for key in ("nesterov", "neighbours")], [True, 0]),
    ("attacks.x.eps=7/255", lambda p: attack(p)["eps"], 7 / 255),
    ("attacks.x.step=7/255", lambda p: attack(p)["step"], 7 / 255),
    *(
        (f"attacks.x.{key}={value}", lambda p, key=key: attack(p)[key], value)
        for key, value in [
            ("steps", 7), ("objective", "margin"), ("random_start", True), ("momentum", 7), ("nesterov", False),
            ("diversity", 0.7), ("diversity_size", 0.7), ("kernel", 7), ("copies", 7), ("neighbours", 7),
            ("neighbourhood", 7),
        ]
    ),
    ("compute.precision=bf16", lambda p: p.loader().precision, "bf16"),
    ("compute.chunk=3", lambda p: p.rows, [3, 3, 2]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "told", "expected"), REACHES, ids=[row[0] for row in REACHES])
def test_every_key_reaches_what_it_names(plan: Any, settings: str, told: Callable[[Plan], Any], expected: Any) -> None:
    assert told(plan(settings)) == expected


def asks_for_a_gpu(plan: Plan) -> bool:
    try:
        return worker_of(plan.experiment.compute).gpus == 1
    except InputError as problem:
        return "GPU: 1 wanted" in str(problem)


def at_once(plan: Plan) -> int:
    return workers_that_fit(plan.experiment.compute, worker_of(plan.experiment.compute))


ON_RAY: list[tuple[str, Callable[[Plan], Any], Any]] = [
    ("compute.workers=1", at_once, 1),
    ("compute.workers=2", at_once, 2),
    ("compute.threads=2", lambda plan: worker_of(plan.experiment.compute).ray_options["num_cpus"], 2),
    ("compute.accelerator=cuda", asks_for_a_gpu, True),
    ("compute.accelerator=cpu", asks_for_a_gpu, False),
    (
        "compute.resources={mock_gpu: 1}",
        lambda plan: worker_of(plan.experiment.compute).ray_options["resources"],
        {"mock_gpu": 1},
    ),
]


@pytest.mark.parametrize(("settings", "told", "expected"), ON_RAY, ids=[row[0] for row in ON_RAY])
def test_every_key_of_compute_reaches_ray(
    ray_cluster: None, plan: Any, settings: str, told: Callable[[Plan], Any], expected: Any
) -> None:
    assert told(plan(settings)) == expected


def test_no_key_is_without_such_a_proof() -> None:
    proven = {pattern(settings.partition("=")[0]) for settings, _, _ in REACHES + ON_RAY}
    assert proven == KEYS


def surrogates(plan: Plan) -> dict[str, Surrogate]:
    return {surrogate.name: surrogate for surrogate in surrogates_of(plan.experiment)}


ALL = "controls=[label_only, witness, ensemble, aligned_ensemble]"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            f"{ALL};variants={{}}",
            {
                "source": ("a", "source", ["a"]),
                "aligned": ("a", "source", ["aligned"]),
                "label_only": ("a", "source", ["label_only"]),
                "witness": ("a", "source", ["b"]),
                "ensemble": ("a", "source", ["a", "b"]),
                "aligned_ensemble": ("a", "source", ["aligned", "b"]),
            },
        ),
        (
            f"{ALL};variants={{}};witnesses=[b, d]",
            {
                "source": ("a", "source", ["a"]),
                "aligned": ("a", "source", ["aligned"]),
                "label_only": ("a", "source", ["label_only"]),
                "witness-b": ("a", "source", ["b"]),
                "witness-d": ("a", "source", ["d"]),
                "ensemble": ("a", "source", ["a", "b", "d"]),
                "aligned_ensemble": ("a", "source", ["aligned", "b", "d"]),
            },
        ),
        (
            "controls=[];variants={hot: {align: {temperature: 9}}, moved: {source: d}, again: {source: d}}",
            {
                "source": ("a", "source", ["a"]),
                "aligned": ("a", "source", ["aligned"]),
                "hot": ("a", "source", ["hot"]),
                "source-d": ("d", "source-d", ["d"]),
                "moved": ("d", "source-d", ["moved"]),
                "again": ("d", "source-d", ["again"]),
            },
        ),
    ],
    ids=["controls", "two witnesses", "variants"],
)
def test_surrogates_in_the_order_of_the_tables(plan: Any, settings: str, expected: dict[str, Any]) -> None:
    found = surrogates(plan(settings))
    assert {name: (s.source, s.baseline, list(s.members)) for name, s in found.items()} == expected
    assert list(found) == list(expected)


def test_label_only_is_the_same_fine_tune_without_a_witness(plan: Any) -> None:
    found = surrogates(plan("controls=[label_only];align={epochs: 7, label_weight: 0.5, weight: 2}"))
    aligned, control = found["aligned"], found["label_only"]
    assert control.align == dataclasses.replace(aligned.align, weight=0.0, label_weight=1.0)
    assert (aligned.witnesses, control.witnesses) == (("b",), ())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("variants={}", set()),
        (f"{ALL};variants={{}}", {
            ("aligned", "label_only"), ("aligned", "witness"), ("aligned", "ensemble"),
            ("aligned_ensemble", "ensemble"),
        }),
        ("controls=[witness];variants={};witnesses=[b, d]", {("aligned", "witness-b"), ("aligned", "witness-d")}),
        ("controls=[aligned_ensemble];variants={}", set()),
        ("controls=[label_only];variants={hot: {align: {temperature: 9}}, moved: {source: d}}", {
            ("aligned", "label_only"), ("hot", "label_only"), ("hot", "aligned"),
        }),
    ],
    ids=["no control", "controls", "two witnesses", "no plain ensemble", "variants"],
)  # fmt: skip
def test_contrasts_compare_what_shares_its_source(plan: Any, settings: str, expected: set[tuple[str, str]]) -> None:
    pairs = contrasts_of(surrogates_of(plan(settings).experiment))
    assert set(pairs) == expected
    assert len(pairs) == len(expected)
