"""Every key of the experiment file has an effect on the thing that it names."""

import re
from collections.abc import Callable
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_keys import KEYS, pattern
from one_worker import WORKER, crafter_of
from torch import Tensor

from align_core.errors import InputError
from align_core.images import Fit
from align_core.models import Classifier, build
from align_core.weights import hash_weights, read_weights
from pipelines.compute.cluster import worker_of, workers_that_fit
from pipelines.experiment.surrogates import contrasts_of
from pipelines.report.tables import target_relation
from pipelines.stages.blueprint import Blueprint, Making
from pipelines.stages.craft import CraftItem
from pipelines.stages.evaluations import in_turns
from pipelines.stages.payload import fine_tune_of, network_loader
from pipelines.stages.payload import test_images as images_of
from pipelines.tracking.runs import tracking_uri


def built(blueprint: Blueprint, name: str) -> Classifier:
    return build(blueprint.networks[name].config, network_loader(blueprint).classes, blueprint.inspected.shape[0])


def net(blueprint: Blueprint, name: str = "new") -> Any:
    return built(blueprint, name).net


def flat(tensor: Tensor) -> list[float]:
    values: list[float] = tensor.flatten().tolist()
    return values


def holds(blueprint: Blueprint, name: str, weights: str) -> bool:
    """Whether a model has the weights of a file beside the experiment."""
    file = Path(str(blueprint.experiment.data.train.path)).parent / weights
    return blueprint.networks[name].digest == hash_weights(read_weights(file))


def making(blueprint: Blueprint, name: str) -> Making:
    return next(making for making in (*blueprint.trainings(), *blueprint.alignments()) if making.name == name)


def ids(blueprint: Blueprint, role: str) -> list[str]:
    return blueprint.inspected.manifests[role].ids


def attack(blueprint: Blueprint) -> dict[str, Any]:
    inputs: dict[str, Any] = blueprint.adversarial(blueprint.by_name["aligned"], "x").inputs["attack"]
    return inputs


ALIGNED = ("aligned", "v")
TEST_IMAGES = np.random.default_rng(0).integers(0, 256, (26, 8, 8, 3), np.uint8)[8:16]
MADE = sha256(TEST_IMAGES.transpose(0, 3, 1, 2).tobytes()).hexdigest()
BEGUN = "models.e.weights=a.safetensors;models.e.args={}"
LISTED = "data.test.labels=columns.csv;data.test.kind=folder;data.test.path=photos;data.test.take=null"
STOPPING = "data.validation={kind: npz, path: others.npz};validation_targets=[d]"


def wraps_of_j(blueprint: Blueprint) -> list[Any]:
    """The defences around the model j, which is c but for them."""
    j, c = blueprint.networks["j"], blueprint.networks["c"]
    assert (j.digest, j.config) == (c.digest, c.config)
    return [(wrap.name, wrap.settings) for wrap in j.wraps]


def largest_pass(blueprint: Blueprint) -> int:
    """The largest number of images that a worker shows to the source at once while it crafts."""
    crafter = crafter_of(blueprint)
    sizes: list[int] = []
    source = crafter.networks.mean_of(crafter.job.surrogates["source"].members)
    source.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    item = CraftItem(surrogate="source", attack="x", chunk=0, clean=crafter.job.images.read(0))
    assert crafter(item)["made"]
    return max(sizes)


# The keys that are set, a function of the blueprint that shows their effect, and the value that it must return.
EFFECTS: list[tuple[str, Callable[[Blueprint], Any], Any]] = [
    ("name=other", lambda b: Path(b.store.location).name, "other"),
    ("seed=5", lambda b: (making(b, "v").inputs["seed"], b.adversarial(b.by_name["v"], "x").inputs["seed"]), (5, 5)),
    ("output=there", lambda b: Path(b.store.location) == Path.cwd() / "there" / "tiny", True),
    ("tracking=http://host:1", lambda b: tracking_uri(b.experiment), "http://host:1"),
    ("factories=code;models.new.factory=net_of_the_code:flat;models.new.train={}", lambda b: len(net(b)), 2),
    ("data.classes=3", lambda b: network_loader(b).classes, 3),
    (
        "data.classes=classes.txt;data.test={kind: folder, path: photos, limit: 2}",
        lambda b: (network_loader(b).classes, b.inspected.manifests["test"].labels.tolist()), (3, [1, 1]),
    ),
    (
        "data.channels=3;data.train={kind: npz, path: greys.npz, limit: 8};"
        "data.test={kind: npz, path: greys.npz, take: [8, 16]}",
        lambda b: b.inspected.shape, (3, 8, 8),
    ),
    ("data.on_duplicate=skip;data.train.take=[0, 9]", lambda b: ids(b, "train"), [f"0000{row}" for row in range(8)]),
    ("data.image_size=6", lambda b: b.inspected.shape, (3, 6, 6)),
    ("data.resize=9", lambda b: (images_of(b).fit, b.inspected.shape), (Fit(8, 9), (3, 8, 8))),
    ("data.interpolation=bilinear", lambda b: images_of(b).fit, Fit(8, None, "bilinear")),
    (
        "data.on_bad_image=skip;data.classes=classes.txt;data.validation={kind: folder, path: photos}",
        lambda b: ids(b, "validation"), ["cat/0.png", "cat/1.png"],
    ),
    (
        "data.test.kind=folder;data.test.path=photos;data.test.take=[1, 2];data.classes=classes.txt",
        lambda b: ids(b, "test"), ["cat/1.png"],
    ),
    ("data.test.path=others.npz;data.test.take=null", lambda b: ids(b, "test"), ["00000", "00001", "00002"]),
    (
        "data.test.labels=photos.csv;data.test.kind=folder;data.test.path=photos;data.test.take=null",
        lambda b: b.inspected.manifests["test"].labels.tolist(), [2],
    ),
    (f"data.test.image_column=file;{LISTED}", lambda b: ids(b, "test"), ["cat/1.png"]),
    (f"data.test.label_column=class;{LISTED}", lambda b: b.inspected.manifests["test"].labels.tolist(), [2]),
    (
        f"data.test.first_class=1;data.test.label_column=class;{LISTED}",
        lambda b: b.inspected.manifests["test"].labels.tolist(), [1],
    ),
    (
        f"data.test.label_names=numbers_again.csv;data.classes=classes.txt;{LISTED}",
        lambda b: b.inspected.manifests["test"].labels.tolist(), [1],
    ),
    (
        "data.test.id_column=row;data.test.path=few.parquet;data.test.kind=parquet;data.test.take=null",
        lambda b: ids(b, "test"), ["x", "y"],
    ),
    ("data.train.take=[2, 4]", lambda b: ids(b, "train"), ["00002", "00003"]),
    ("data.train.sample=3", lambda b: [int(row) % 3 for row in ids(b, "train")], [0, 1, 2]),
    ("data.train.sample_seed=1;data.train.sample=3", lambda b: ids(b, "train"), ["00002", "00003", "00007"]),
    ("data.train.limit=1", lambda b: ids(b, "train"), ["00000"]),
    ("data.train.inspect=bytes", lambda b: b.inspected.manifests["train"].undecoded, Fit(8)),
    ("models.new.timm=test_vit;models.new.train={}", lambda b: type(net(b)).__name__, "VisionTransformer"),
    ("models.new.torchvision=squeezenet1_1;models.new.train={}", lambda b: type(net(b)).__name__, "SqueezeNet"),
    ("models.new.factory=nets_of_any_size:flat;models.new.train={}", lambda b: type(net(b)[0]).__name__, "Flatten"),
    ("models.new.aligned=aligned", lambda b: holds(b, "new", "aligned/model.safetensors"), True),
    ("variants.v.model=d", lambda b: (b.by_name["v"].members, b.by_name["v"].align), (("d",), None)),
    ("warning=beware", lambda b: b.experiment.warning, "beware"),  # its effect is tested in test_html_page
    ("register=mine", lambda b: b.experiment.registered_as, "mine"),  # its effect is tested in test_registry
    ("mlflow_models=none", lambda b: b.experiment.mlflow_models, "none"),  # its effect is tested in test_mlflow_models
    ("models.e.args={width: 7}", lambda b: net(b, "e")[0].out_channels, 7),
    ("models.a.weights=d.safetensors", lambda b: holds(b, "a", "d.safetensors"), True),
    ("models.e.train.epochs=7", lambda b: making(b, "e").align.epochs, 7),
    ("models.e.train.lr=7", lambda b: making(b, "e").align.optimizer.lr, 7),
    ("models.e.train.batch_size=7", lambda b: making(b, "e").align.batch_size, 7),
    ("models.e.train.weight_decay=7", lambda b: making(b, "e").align.optimizer.weight_decay, 7),
    ("models.e.train.crop=random_resized", lambda b: making(b, "e").align.augment.crop, "random_resized"),
    ("models.e.train.flip=true", lambda b: making(b, "e").align.augment.flip, True),
    ("models.e.train.warmup=0.5", lambda b: making(b, "e").align.optimizer.warmup, 0.5),
    (f"models.e.train.layer_decay=0.5;{BEGUN}", lambda b: making(b, "e").align.optimizer.layer_decay, 0.5),
    (f"models.e.train.freeze=['0.bias'];{BEGUN}", lambda b: making(b, "e").align.freeze, ["0.bias"]),
    (f"models.e.train.batchnorm=frozen;{BEGUN}", lambda b: making(b, "e").align.batchnorm, "frozen"),
    ("models.a.mean=[0, 0.5, 1];models.a.std=[1, 1, 1]", lambda b: flat(built(b, "a").mean_C11), [0, 0.5, 1]),
    ("models.a.std=[0.25, 0.5, 1];models.a.mean=[1, 1, 1]", lambda b: flat(built(b, "a").std_C11), [0.25, 0.5, 1]),
    ("models.a.input_size=5", lambda b: built(b, "a").input_size, 5),
    ("models.d.family=plain;models.d.args={out: 3}", lambda b: target_relation(b, "a", "d"), "same_family"),
    ("source=d", lambda b: [making(b, name).start for name in ALIGNED], ["d", "d"]),
    ("witnesses=[b, d]", lambda b: [making(b, name).witnesses for name in ALIGNED], [("b", "d")] * 2),
    ("models.j.wrap=bits;models.j.model=c;targets=[j]", wraps_of_j, [("bits", {"depth": 5})]),
    ("models.j.model=c;models.j.wrap=jpeg;models.j.quality=9;targets=[j]", wraps_of_j, [("jpeg", {"quality": 9})]),
    ("targets=[d]", lambda b: {cell.target for cell in b.cells()}, {"@self", "d"}),
    (
        "matrix=[a, d];source=null;targets=null;variants={}",
        lambda b: {(cell.surrogate, cell.target) for cell in b.cells() if cell.target != "@self"},
        {("source-a", "d"), ("source-d", "a"), ("aligned-a", "d"), ("aligned-d", "a")},
    ),
    ("validation_targets=[d]", lambda b: b.experiment.validation_targets, ["d"]),
    ("groups={both: [e, c]}", lambda b: b.experiment.groups, {"both": ["e", "c"]}),  # its effect: test_tables
    ("controls=[witness]", lambda b: list(b.by_name), ["source", "aligned", "witness", "v"]),
    *(
        (f"align.{key}={value}", lambda b, key=key: [getattr(making(b, n).align, key) for n in ALIGNED], [value] * 2)
        for key, value in [
            ("temperature", 7), ("weight", 7), ("label_weight", 7), ("epochs", 7), ("batch_size", 7), ("workers", 2),
            ("accumulate", 2),
            ("clip_grad_norm", 7), ("batchnorm", "frozen"), ("checkpoint_steps", 7), ("loss", "mse"),
            ("teacher", "source"), ("over_witnesses", "max"), ("limit_steps", 7), ("freeze", ["*.weight"]),
            ("inputs", {"name": "random", "eps": 0.5}), ("mix", {"name": "mixup", "alpha": 0.5}),
            ("terms", [{"name": "input_gradient", "weight": 7.0}]), ("update", {"name": "sam", "rho": 0.5}),
            ("keep", {"name": "ema", "decay": 0.5}),
        ]
    ),
    *(
        (f"align.optimizer.{key}={value}", lambda b, key=key: getattr(making(b, "v").align.optimizer, key), value)
        for key, value in [
            ("name", "adamw"), ("lr", 7), ("momentum", 0.7), ("nesterov", False), ("weight_decay", 7),
            ("schedule", "constant"), ("warmup", 0.5), ("layer_decay", 0.5),
        ]
    ),
    *(
        (
            f"align.early_stop.{key}={value};{others}",
            lambda b, key=key: [getattr(making(b, n).align.early_stop, key) for n in ALIGNED],
            [value] * 2,
        )
        for key, value, others in [
            ("every", 7, "data.validation={kind: npz, path: others.npz}"),
            ("patience", 7, "data.validation={kind: npz, path: others.npz}"),
            ("by", "gain", f"align.early_stop.attack=x;{STOPPING}"),
            ("attack", "x", f"align.early_stop.by=gain;{STOPPING}"),
        ]
    ),
    ("align.label_smoothing=0.5;align.label_weight=1", lambda b: making(b, "v").align.label_smoothing, 0.5),
    *(
        (f"align.augment.{key}={value}", lambda b, key=key: getattr(making(b, "v").align.augment, key), value)
        for key, value in [("crop", "random_resized"), ("flip", False)]
    ),
    ("variants.v.source=d", lambda b: [making(b, name).start for name in ALIGNED], ["a", "d"]),
    ("variants.v.witnesses=[d]", lambda b: [making(b, name).witnesses for name in ALIGNED], [("b",), ("d",)]),
    ("variants.v.refine=label_only", lambda b: [making(b, name).align.weight for name in ALIGNED], [1, 0]),
    (
        "variants.v.budget=aligned;variants.v.align={update: sam};align.epochs=5",
        lambda b: making(b, "v").align.limit_steps,
        2,
    ),
    ("variants.v.ensemble=[b, aligned]", lambda b: b.by_name["v"].members, ("b", "aligned")),
    ("variants.v.combine=loss;variants.v.ensemble=[b, a]", lambda b: b.by_name["v"].combine, "loss"),
    ("seeds=[4, 2]", lambda b: [making(b, f"v~{seed}").inputs["seed"] for seed in (4, 2)], [4, 2]),
    ("contrasts=[[v, source]]", lambda b: contrasts_of(b.planned, b.experiment.contrasts)[-1], ("v", "source")),
    ("variants.v.align={weight: 7}", lambda b: [making(b, name).align.weight for name in ALIGNED], [1, 7]),
    ("attacks.x.method=ni", lambda b: [attack(b)[key] for key in ("nesterov", "samples")], [True, "none"]),
    ("attacks.x.eps=7/255", lambda b: attack(b)["eps"], 7 / 255),
    ("attacks.x.step=7/255", lambda b: attack(b)["step"], 7 / 255),
    *(
        (f"attacks.x.{key}={value}", lambda b, key=key: attack(b)[key], value)
        for key, value in [
            ("steps", 7), ("random_start", True), ("momentum", 7), ("nesterov", False), ("kernel", 7), ("norm", "l2"),
            ("towards", "next"), ("normalized", False), ("warm_start", 7), ("step_decay", 0.7),
            ("samples", "none"), ("views", []),
        ]
    ),
    ("attacks.x.objective=margin", lambda b: attack(b)["objective"], "margin"),
    ("attacks.x.warm_stride=7;attacks.x.warm_start=1", lambda b: attack(b)["warm_stride"], 7),
    ("attacks.x.step_decay_by=gradient;attacks.x.step_decay=0.5", lambda b: attack(b)["step_decay_by"], "gradient"),
    ("attacks.x.kernel=auto", lambda b: attack(b)["kernel"], 3),
    ("attacks.x.budget=50", lambda b: (attack(b)["steps"], attack(b)["samples"]["count"]), (5, 11)),
    ("attacks.x.views=[{name: scale, copies: 2}]", lambda b: attack(b)["views"], [{"name": "scale", "copies": 2}]),
    (
        "attacks.x.args={decay: 7};attacks.x.method=torchattack:MIFGSM",
        lambda b: [attack(b)[key] for key in ("args", "version")],
        [{"decay": 7}, version("torchattack")],
    ),
    ("attacks.t.images=made.npy;attacks.t.eps=8/255", lambda b: b.inspected.attacks.made["t"], MADE),
    (
        "attacks.t.compare_with=x;attacks.t.images=made.npy;attacks.t.eps=8/255",
        lambda b: b.experiment.made_elsewhere["t"].compare_with, "x",  # its effect is tested in test_made_elsewhere
    ),
    (
        "attacks.t.source=d;attacks.t.images=made.npy;attacks.t.eps=8/255;"
        "matrix=[a, d];source=null;targets=null;variants={}",
        lambda b: [(own.name, own.unseen(b.targets)) for own in b.external], [("external-d", ["a"])],
    ),
    ("attacks.x.samples=line", lambda b: attack(b)["samples"]["count"], 11),
    ("attacks.x.combine=logits;attacks.x.views=[sizes]", lambda b: attack(b)["combine"], "logits"),
    ("corruptions={jpeg: [2]}", lambda b: [str(own) for own in b.corruptions], ["jpeg-2"]),
    ("reasons.sample=5", lambda b: b.sample.rows, [5]),
    (
        "reasons.attack=y;attacks.y={method: fgsm, eps: 4/255}",
        lambda b: [one.attacked and one.attacked.folder for one in b.measurings if one.surrogate in ALIGNED],
        [f"adversarial/{name}/y" for name in ALIGNED],
    ),
    ("compute.pass=7", largest_pass, 7),
    ("compute.precision=bf16", lambda b: network_loader(b).precision, "bf16"),
    ("compute.chunk=3", lambda b: b.rows, [3, 3, 2]),
    ("compute.networks=1", lambda b: {len(one.predictions) for one in in_turns(b.evaluations)}, {1}),
    ("compute.cache=/tmp/kept", lambda b: fine_tune_of(b, making(b, "v"), WORKER).cache, "/tmp/kept"),
    ("compute.patience=7", lambda b: b.experiment.compute.patience, 7),
    ("compute.patience=7", lambda b: fine_tune_of(b, making(b, "v"), WORKER).patience, 7),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "effect", "expected"), EFFECTS, ids=[row[0] for row in EFFECTS])
def test_every_key_has_its_effect(
    tiny_blueprint: Any, settings: str, effect: Callable[[Blueprint], Any], expected: Any
) -> None:
    assert effect(tiny_blueprint(settings)) == expected


def asks_for_a_gpu(blueprint: Blueprint) -> bool:
    try:
        return worker_of(blueprint.experiment.compute).gpus == 1
    except InputError as problem:
        return "GPU: 1 wanted" in str(problem)


def at_once(blueprint: Blueprint, stage: str = "align") -> int:
    return workers_that_fit(worker_of(blueprint.experiment.compute, stage))


def share_of_a_gpu(stage: str) -> Callable[[Blueprint], Any]:
    def effect(blueprint: Blueprint) -> Any:
        try:
            return worker_of(blueprint.experiment.compute, stage)
        except InputError as problem:
            return re.search("GPU: (.+?) wanted", str(problem)).group(1)

    return effect


EFFECTS_ON_RAY: list[tuple[str, Callable[[Blueprint], Any], Any]] = [
    ("compute.workers=1", at_once, 1),
    ("compute.workers=2", at_once, 2),
    ("compute.threads=2", lambda blueprint: worker_of(blueprint.experiment.compute).ray_options["num_cpus"], 2),
    ("compute.accelerator=cuda", asks_for_a_gpu, True),
    ("compute.accelerator=cpu", asks_for_a_gpu, False),
    (
        "compute.resources={mock_gpu: 1}",
        lambda blueprint: worker_of(blueprint.experiment.compute).ray_options["resources"],
        {"mock_gpu": 1},
    ),
    *(
        row
        for stage in ("craft", "evaluate")
        for row in [
            (f"compute.{stage}.workers=1", lambda blueprint, stage=stage: at_once(blueprint, stage), 1),
            (f"compute.{stage}.gpus=0.25;compute.accelerator=cuda", share_of_a_gpu(stage), "0.25"),
            (
                f"compute.{stage}.resources={{mock_gpu: 1}}",
                lambda blueprint, stage=stage: worker_of(blueprint.experiment.compute, stage).ray_options["resources"],
                {"mock_gpu": 1},
            ),
        ]
    ),
]


@pytest.mark.parametrize(("settings", "effect", "expected"), EFFECTS_ON_RAY, ids=[row[0] for row in EFFECTS_ON_RAY])
def test_every_key_of_compute_has_its_effect_on_ray(
    ray_cluster: None, tiny_blueprint: Any, settings: str, effect: Callable[[Blueprint], Any], expected: Any
) -> None:
    assert effect(tiny_blueprint(settings)) == expected


def test_every_key_is_tested_here() -> None:
    tested = {pattern(settings.partition("=")[0]) for settings, _, _ in EFFECTS + EFFECTS_ON_RAY}
    tested.add("models.*.mlflow")  # tested in test_registry, because it needs a registry
    assert tested == KEYS
