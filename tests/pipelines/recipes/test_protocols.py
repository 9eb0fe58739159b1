"""The protocols of others as recipes, held to tables of what their code does.

The tables were typed from averyma/model-alignment and torchattacks 3.4.0, from TransferAttack (utils at 0f240a1, TIM,
DEM, BSR and DeCowA at e5c35a1, DIM at 2651d3c, MEF at 3d4d128, the others at 609c45c and af68780), and from TA-Bench
with timm 0.6.11. They name every setting that the recipes or the presets could change.
"""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchattacks
import torchvision
from timm.models import get_pretrained_cfg
from torchvision.transforms import v2

from align_core.attacks import AttackConfig, pixel_fraction
from align_core.folding import foldable
from align_core.images.classes import class_list
from align_core.images.labels import RawLabels
from align_core.model_config import ModelConfig
from align_core.published import crops
from pipelines.experiment import Experiment, load_experiment
from pipelines.recipes import tabench_models

RECIPES = Path(__file__).parents[3] / "pipelines/recipes"

PLAIN: dict[str, Any] = {
    "norm": "linf",
    "objective": "cross_entropy",
    "towards": "away",
    "random_start": False,
    "momentum": 0.0,
    "normalized": True,
    "nesterov": False,
    "warm_start": 0,
    "warm_stride": 1.0,
    "step_decay": 1.0,
    "step_decay_by": "momentum",
    "kernel": 0,
    "views": [],
    "combine": "gradients",
    "samples": "none",
}
MOMENTUM = {"momentum": 1.0}
NESTEROV = {"momentum": 1.0, "nesterov": True}
DIVERSE = {"name": "resize_pad", "copies": 1, "probability": 0.5, "smallest": 0.9}  # 201 to 223 of 224 pixels


def variance(count: int) -> dict[str, Any]:
    return {"samples": {"name": "variance", "count": count, "radius": 1.5}}


# eps, then for each attack: step, steps, gradients per image, and all in which it is not plain.
ATTACKS: dict[str, tuple[str, dict[str, tuple[str, int, int, dict[str, Any]]]]] = {
    "alignment_eps4": (
        "4/255",
        {
            "pgd": ("1/255", 20, 20, {"random_start": True}),
            "mi": ("1/255", 20, 20, MOMENTUM),
            "ni": ("1/255", 20, 20, NESTEROV),
            "di": ("1/255", 20, 20, {"views": [DIVERSE]}),
            "ti": ("1/255", 20, 20, {"views": [DIVERSE], "kernel": 15}),
            "sini": ("1/255", 20, 100, {**NESTEROV, "views": [{"name": "scale", "copies": 5}]}),
            "vmi": ("1/255", 20, 20 + 19 * 5, {**MOMENTUM, **variance(5)}),
            "vni": ("1/255", 20, 20 + 19 * 5, {**NESTEROV, **variance(5)}),
        },
    ),
    "transferattack_eps16": (
        "16/255",
        {
            "ifgsm": ("1.6/255", 10, 10, {}),
            "mi": ("1.6/255", 10, 10, MOMENTUM),
            # They enlarge to 224 to 245 pixels of 246, and back: to 204 to 223 of 224.
            "di": ("1.6/255", 10, 10, {**MOMENTUM, "views": [{**DIVERSE, "smallest": 0.911}]}),
            "ti": ("1.6/255", 10, 10, {**MOMENTUM, "kernel": 15}),
            "dem": (
                "16/255",
                10,
                50,
                {
                    **MOMENTUM,
                    "views": [{"name": "sizes", "copies": 5, "rate": 1.14, "growth": 0.13}],
                    "combine": "logits",
                },
            ),
            "bsr": (
                "1.6/255",
                10,
                200,
                {**MOMENTUM, "views": [{"name": "block_shuffle", "copies": 20, "blocks": 3, "degrees": 24.0}]},
            ),
            "sia": (
                "1.6/255",
                10,
                200,
                {**MOMENTUM, "views": [{"name": "block_operators", "copies": 20, "blocks": 3, "noise": 16 / 255}]},
            ),
            "pgn": (
                "1.6/255",
                10,
                400,
                {**MOMENTUM, "samples": {"name": "penalty", "count": 20, "radius": 3.0, "share": 0.5}},
            ),
            "mef": (
                "1.6/255",
                20,
                400,
                {
                    "momentum": 0.5,
                    "samples": {
                        "name": "flatness",
                        "count": 20,
                        "radius": 2.0,
                        "inner_radius": 0.15,
                        "inner_decay": 0.9,
                    },
                },
            ),
            "decowa": (
                "1.6/255",
                10,
                400,
                {**MOMENTUM, "views": [{"name": "warp", "copies": 20, "mesh": 3, "noise": 2.0, "rho": 0.01}]},
            ),
        },
    ),
    "tabench_eps8": (
        "8/255",
        {
            "ifgsm": ("1/255", 100, 100, {}),
            "mi": ("1/255", 100, 100, MOMENTUM),
            "di": ("1/255", 100, 100, {"views": [DIVERSE]}),
            "ti_kernel": ("1/255", 100, 100, {"kernel": 7}),
            "admix": ("1/255", 100, 100, {"views": [{"name": "admix", "copies": 1, "share": 0.2}]}),
            "vt": ("1/255", 100, 100 + 99 * 20, variance(20)),
        },
    ),
}

# image_size, resize, interpolation.
PICTURES = {
    "alignment_eps4": (224, 256, "bilinear"),
    "transferattack_eps16": (224, 224, "bicubic"),
    "tabench_eps8": (224, 224, "bilinear"),  # crop_pct 1 and the interpolation of tv_resnet50
}

# Library, name and weights: the source, the witness, then the targets.
V1, V2 = "IMAGENET1K_V1", "IMAGENET1K_V2"
MODELS: dict[str, list[tuple[str, str, str]]] = {
    "alignment_eps4": [
        ("torchvision", "resnet50", V1),
        ("torchvision", "resnet18", V1),
        ("timm", "resnet18.a1_in1k", "pretrained"),
        ("timm", "resnet50.a1_in1k", "pretrained"),
        ("torchvision", "resnet101", V1),
        ("torchvision", "densenet121", V1),
        ("torchvision", "inception_v3", V1),
        ("torchvision", "vgg19_bn", V1),
        ("torchvision", "swin_t", V1),
        ("torchvision", "swin_s", V1),
        ("timm", "vit_tiny_patch16_224.augreg_in21k_ft_in1k", "pretrained"),
        ("timm", "vit_small_patch16_224.augreg_in21k_ft_in1k", "pretrained"),
        ("torchvision", "vit_b_16", V1),
    ],
    "transferattack_eps16": [  # of torchvision, the weights "DEFAULT"
        ("torchvision", "resnet50", V2),
        ("torchvision", "resnet18", V1),
        ("torchvision", "vgg16", V1),
        ("torchvision", "mobilenet_v2", V2),
        ("torchvision", "inception_v3", V1),
        ("timm", "vit_base_patch16_224.augreg2_in21k_ft_in1k", "pretrained"),
        ("timm", "pit_b_224.in1k", "pretrained"),
        ("timm", "visformer_small.in1k", "pretrained"),
        ("timm", "swin_tiny_patch4_window7_224.ms_in1k", "pretrained"),
    ],
    "tabench_eps8": [
        ("torchvision", "resnet50", V1),
        ("torchvision", "resnet18", V1),
        ("victim", "inception_v3.tv_in1k", "none"),
        ("victim", "vgg19_bn.tv_in1k", "none"),
        ("victim", "convnext_base.fb_in1k", "none"),
        ("victim", "vit_base_patch16_224.augreg_in21k_ft_in1k", "none"),
        ("victim", "deit3_base_patch16_224.fb_in1k", "none"),
        ("victim", "beit_base_patch16_224.in22k_ft_in22k_in1k", "none"),
        ("victim", "swin_base_patch4_window7_224.ms_in22k_ft_in1k", "none"),
        ("victim", "mixer_b16_224.goog_in21k_ft_in1k", "none"),
        ("victim", "tf_efficientnetv2_m.in1k", "none"),
    ],
}

# What timm 0.6.11 has under TA-Bench's names: the file of the weights, size, crop share, interpolation, mean.
IMAGENET, HALF = (0.485, 0.456, 0.406), (0.5, 0.5, 0.5)
VICTIMS: dict[str, tuple[str, int, float, str, tuple[float, ...]]] = {
    "inception_v3": ("inception_v3_google-1a9a5a14.pth", 299, 0.875, "bicubic", HALF),
    "vgg19_bn": ("vgg19_bn-c79401a0.pth", 224, 0.875, "bilinear", IMAGENET),
    "convnext_base": ("convnext_base_1k_224_ema.pth", 224, 0.875, "bicubic", IMAGENET),
    "vit_base_patch16_224": (
        "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224.npz",
        224, 0.9, "bicubic", HALF,
    ),
    "deit3_base_patch16_224": ("deit_3_base_224_1k.pth", 224, 0.9, "bicubic", IMAGENET),
    "beit_base_patch16_224": ("beit_base_patch16_224_pt22k_ft22kto1k.pth", 224, 0.9, "bicubic", HALF),
    "swin_base_patch4_window7_224": ("swin_base_patch4_window7_224_22kto1k.pth", 224, 0.9, "bicubic", IMAGENET),
    "mixer_b16_224": ("jx_mixer_b16_224-76587d61.pth", 224, 0.875, "bicubic", HALF),
    "tf_efficientnetv2_m": ("tf_efficientnetv2_m-cc09e0cd.pth", 384, 1.0, "bicubic", HALF),
}  # fmt: skip


@pytest.fixture
def experiments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Experiment]:
    """The recipes, for a user whose folders all are one."""
    for variable in ("WITNESS_IMAGENET", "WITNESS_NIPS17", "WITNESS_TABENCH"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "classes.txt").write_text("".join(f"n{number:08}\n" for number in range(1000)))
    return {name: load_experiment(RECIPES / f"{name}.yaml") for name in ATTACKS}


@pytest.mark.parametrize(("protocol", "attack"), [(name, attack) for name in ATTACKS for attack in ATTACKS[name][1]])
def test_an_attack_has_the_settings_of_the_protocol(
    experiments: dict[str, Experiment], protocol: str, attack: str
) -> None:
    found = experiments[protocol].attacks[attack]
    eps, table = ATTACKS[protocol]
    step, steps, gradients, own = table[attack]
    assert isinstance(found, AttackConfig)
    assert (found.eps, found.step) == (pytest.approx(pixel_fraction(eps)), pytest.approx(pixel_fraction(step)))
    assert (found.steps, found.gradients, found.budget) == (steps, gradients, None)
    asked = {"method", "eps", "step", "steps", "budget"}
    rest = {field.name: getattr(found, field.name) for field in dataclasses.fields(found) if field.name not in asked}
    assert rest == {**PLAIN, **own}


TORCHATTACKS = {
    "pgd": "PGD", "mi": "MIFGSM", "ni": "NIFGSM", "di": "DIFGSM", "ti": "TIFGSM", "sini": "SINIFGSM",
    "vmi": "VMIFGSM", "vni": "VNIFGSM",
}  # fmt: skip


def test_the_settings_of_alignment_eps4_are_the_defaults_of_torchattacks(experiments: dict[str, Experiment]) -> None:
    attacks = experiments["alignment_eps4"].attacks
    assert set(attacks) == set(TORCHATTACKS)
    for name, attack in attacks.items():
        assert isinstance(attack, AttackConfig)
        given = {"model", "eps", "alpha", "steps"}  # by the authors
        signature = inspect.signature(getattr(torchattacks, TORCHATTACKS[name])).parameters
        defaults = {key: parameter.default for key, parameter in signature.items() if key not in given}
        ours: dict[str, Any] = {"decay": attack.momentum, "random_start": attack.random_start}
        ours |= {"len_kernel": attack.kernel, "kernel_name": "gaussian", "nsig": 3}
        for view in attack.views:
            ours |= {"resize_rate": view.get("smallest"), "diversity_prob": view.get("probability")}
            ours |= {"m": view["copies"]}
        if attack.rule:
            ours |= {"N": attack.rule["count"], "beta": attack.rule["radius"]}
        assert {key: ours[key] for key in defaults} == defaults, name


@pytest.mark.parametrize("protocol", ATTACKS)
def test_a_protocol_has_these_attacks_models_and_pixels(experiments: dict[str, Experiment], protocol: str) -> None:
    experiment = experiments[protocol]
    assert experiment.name == protocol
    assert list(experiment.attacks) == list(ATTACKS[protocol][1])
    roles = [experiment.source, *experiment.witnesses, *experiment.targets]
    assert [_named(experiment.models[role]) for role in roles] == MODELS[protocol]
    assert set(roles) == set(experiment.models)
    fit = experiment.data.fit
    assert (fit.size, fit.short_side, fit.interpolation) == PICTURES[protocol]
    # Input size and normalisation are the published ones, and no argument changes a network.
    assert all(model.input_size is model.mean is model.std is None for model in experiment.models.values())
    assert experiment.data.classes_count == 1000


def _named(model: ModelConfig) -> tuple[str, str, str]:
    """Library, name and weights. Constructor arguments, which would change the network, are refused."""
    if model.factory:
        assert (model.factory, list(model.args)) == ("tabench_models:victim", ["name"])
        return "victim", model.args["name"], str(model.weights)
    assert not model.args
    library = "timm" if model.timm else "torchvision"
    return library, getattr(model, library), str(model.weights)


@pytest.mark.parametrize("protocol", ATTACKS)
def test_every_model_exists_with_its_weights(protocol: str) -> None:
    for library, name, weights in MODELS[protocol]:
        if library == "torchvision":
            assert weights in {w.name for w in torchvision.models.get_model_weights(name)}, name
        else:
            assert timm.is_model(name) and get_pretrained_cfg(name).has_weights, name
            assert get_pretrained_cfg(name).num_classes == 1000, name


def test_torchvisions_weights_of_transferattack_are_its_default_ones() -> None:
    witness = ("torchvision", "resnet18", V1)
    for library, name, weights in MODELS["transferattack_eps16"]:
        if library == "torchvision" and (library, name, weights) != witness:
            assert torchvision.models.get_model_weights(name).DEFAULT.name == weights, name


def test_victims_of_tabench_have_the_weights_and_the_crops_of_timm_0_6_11() -> None:
    tags = [name for library, name, _ in MODELS["tabench_eps8"] if library == "victim"]
    assert {name.partition(".")[0] for name in tags} == set(VICTIMS)
    for name in tags:
        file, size, share, interpolation, mean = VICTIMS[name.partition(".")[0]]
        published = get_pretrained_cfg(name)
        found = (published.input_size[-1], published.crop_pct, published.interpolation, published.mean)
        assert found == (size, share, interpolation, mean), name
        if published.url:
            assert published.url.endswith(f"/{file}"), name
        else:  # timm 1.0 has left out where some of its copies come from; these architectures have one for ImageNet
            tags_of_it = timm.list_pretrained(f"{name.partition('.')[0]}.*")
            assert [tag for tag in tags_of_it if get_pretrained_cfg(tag).num_classes == 1000] == [name]


def test_the_source_of_tabench_has_the_interpolation_of_its_images() -> None:
    assert get_pretrained_cfg("resnet50.tv_in1k").interpolation == PICTURES["tabench_eps8"][2]
    published = crops(ModelConfig(torchvision="resnet50", weights=V1), 1000)
    assert [crop.interpolation for crop in published] == [PICTURES["tabench_eps8"][2]]


@pytest.mark.parametrize(
    ("size", "share", "interpolation"), [(299, 0.875, "bicubic"), (224, 0.9, "bilinear"), (384, 1.0, "bicubic")]
)
def test_a_victim_enlarges_and_crops_as_timm_does(
    monkeypatch: pytest.MonkeyPatch, size: int, share: float, interpolation: str
) -> None:
    class Net(torch.nn.Module):
        pretrained_cfg = {  # noqa: RUF012
            "input_size": (3, size, size), "crop_pct": share, "interpolation": interpolation,
            "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6),
        }  # fmt: skip

        def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
            return images_BCHW

    def create(name: str, pretrained: bool) -> Net:
        assert (name, pretrained) == ("some.tag", True)
        return Net()

    monkeypatch.setattr(timm, "create_model", create)
    images_BCHW = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seen_BCHW = tabench_models.victim("some.tag")(images_BCHW)
    expected = v2.Compose(
        [
            v2.Resize(int(size / share), interpolation=v2.InterpolationMode(interpolation), antialias=False),
            v2.CenterCrop(size),
            v2.Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
        ]
    )
    assert torch.equal(seen_BCHW, expected(images_BCHW))


def test_a_victim_is_the_network_of_that_name_and_can_be_folded() -> None:
    victim = tabench_models.victim("test_resnet.r160_in1k", pretrained=False).eval()
    assert victim.net.pretrained_cfg["tag"] == "r160_in1k"
    with torch.no_grad():
        assert victim(torch.rand(1, 3, 224, 224)).shape == (1, 1000)
    assert len(foldable(victim).pairs) == len(foldable(victim.net).pairs) > 0


def test_labels_of_both_sets_are_understood(experiments: dict[str, Experiment]) -> None:
    wnids = tuple(f"n{number:08}" for number in range(1000))
    train = RawLabels(np.array(wnids), wnids)
    # TransferAttack's labels are indices, and need the list of wnids; those of the others are wnids themselves.
    indices, names = RawLabels(np.array([0, 999])), RawLabels(np.array(wnids[:2]), wnids[:2])
    for protocol, test in (("transferattack_eps16", indices), ("tabench_eps8", names), ("alignment_eps4", train)):
        data = experiments[protocol].data
        known = class_list({"train": train, "test": test}, data.classes_count, data.class_names)
        assert known.names == wnids
        assert known.indices("train", train)[-1] == 999


def test_every_recipe_says_that_protocols_do_not_mix() -> None:
    for protocol in ATTACKS:
        assert "Do not put results of different protocols side by side" in (RECIPES / f"{protocol}.yaml").read_text()
