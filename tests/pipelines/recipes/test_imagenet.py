"""The recipes for ImageNet: what they say of themselves is so, and they run to the end without any network."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from PIL import Image
from safetensors.torch import save_file

from align_core.model_config import ModelConfig
from pipelines.experiment import Experiment, load_experiment
from pipelines.experiment.surrogates import surrogates_of

RECIPES = Path(__file__).parents[3] / "pipelines/recipes"
FOR_IMAGENET = ("imagenet", "alignment_eps4", "tabench_eps8", "transferattack_eps16")
IMAGES = 2
BYTES = 3 * 224 * 224


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder that all variables of the recipes name."""
    for variable in ("WITNESS_IMAGENET", "WITNESS_NIPS17", "WITNESS_TABENCH"):
        monkeypatch.setenv(variable, str(tmp_path))
    (tmp_path / "classes.txt").write_text("".join(f"n{number:08}\n" for number in range(1000)))
    return tmp_path


@pytest.fixture
def imagenet(folders: Path) -> Experiment:
    return load_experiment(RECIPES / "imagenet.yaml")


def test_both_weights_of_resnet50_are_sources_and_each_has_its_control(imagenet: Experiment) -> None:
    of_source: dict[str, set[str]] = {}
    for surrogate in surrogates_of(imagenet):
        of_source.setdefault(str(surrogate.source), set()).add(surrogate.name)
    assert of_source["resnet50_v1"] >= {"source", "aligned", "label_only"}
    assert of_source["resnet50_v2"] == {"source-resnet50_v2", "v2", "v2_label_only"}
    weights = [imagenet.models[name].weights for name in ("resnet50_v1", "resnet50_v2")]
    assert weights == ["IMAGENET1K_V1", "IMAGENET1K_V2"]


def test_the_second_control_differs_from_its_alignment_as_the_first_does_from_its_own(imagenet: Experiment) -> None:
    made = {surrogate.name: surrogate.align for surrogate in surrogates_of(imagenet)}
    assert made["aligned"] == made["v2"]
    assert made["label_only"] == made["v2_label_only"]


def test_every_model_exists_with_its_weights(imagenet: Experiment) -> None:
    for config in imagenet.models.values():
        if config.torchvision:
            assert config.weights in {one.name for one in torchvision.models.get_model_weights(config.torchvision)}
        else:
            assert timm.get_pretrained_cfg(str(config.timm)).has_weights
    assert sorted(name for group in imagenet.groups.values() for name in group) == sorted(imagenet.targets)


def comment_of(recipe: str) -> str:
    text = (RECIPES / f"{recipe}.yaml").read_text().partition("\nname:")[0]
    return " ".join(line.removeprefix("#").strip() for line in text.splitlines())


def test_it_has_more_than_the_least_number_of_training_images_and_a_warm_up(imagenet: Experiment) -> None:
    said = comment_of("imagenet")
    least, used, steps = (int(number.replace(",", "")) for number in re.findall(
        r"No fewer than ([\d,]+) .* here are ([\d,]+), ([\d,]+) steps", said)[0])  # fmt: skip
    assert imagenet.data.train.sample == used >= least
    assert steps in (used // imagenet.align.batch_size, -(-used // imagenet.align.batch_size))
    assert imagenet.align.optimizer.warmup == 0.1 and "the first tenth" in said


@pytest.mark.parametrize("recipe", FOR_IMAGENET)
def test_it_says_what_it_needs_on_disk(folders: Path, recipe: str) -> None:
    """The weights, and the images of one surrogate and attack."""
    said, experiment = comment_of(recipe), load_experiment(RECIPES / f"{recipe}.yaml")
    weights = sum(size_of(config) for config in experiment.models.values())
    assert re.findall(r"([\d.]+) GB of weights", said) == [f"{weights / 1e9:.1f}"]
    images = {"tabench_eps8": 5000}.get(recipe, 1000)
    assert experiment.data.test.sample in (None, images)
    megabytes = re.findall(r"at most (\d+) MB for each surrogate and attack", said)
    assert [int(number) for number in megabytes] == [round(images * BYTES / 1e6, -1)]


def net_of(config: ModelConfig) -> torch.nn.Module:
    """A network with random weights."""
    if config.torchvision:
        quick = {"init_weights": False} if config.torchvision == "inception_v3" else {}
        return torchvision.models.get_model(config.torchvision, weights=None, **quick)
    return timm.create_model(str(config.timm or config.args["name"]))


def size_of(config: ModelConfig) -> int:
    """Bytes of a network's weights, as float32."""
    with torch.device("meta"):
        return sum(4 * tensor.numel() for tensor in net_of(config).state_dict().values())


def write_images(folder: Path) -> None:
    """A training image of every class, some test images, and the tables of TransferAttack and TA-Bench for them."""
    generator = np.random.default_rng(0)
    sets = {"train": 1000, "val": IMAGES}
    for name, count in sets.items():
        for number in range(count):
            file = folder / name / f"n{number:08}" / f"{name}.JPEG"
            file.parent.mkdir(parents=True)
            Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(file)
    (folder / "images").mkdir()
    lines, benched = ["filename,label"], ["class_index,class,image_name"]
    for number in range(IMAGES):
        Image.fromarray(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)).save(folder / f"images/{number}.png")
        lines.append(f"{number}.png,{number}")
        benched.append(f"{number},n{number:08},{number}.png")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "rand_5000.csv").write_text("\n".join(benched) + "\n")


KEPT = {
    "imagenet": ["convnext_tiny", "deit3_s"],
    "alignment_eps4": ["vit_t"],
    "tabench_eps8": ["inception_v3"],
    "transferattack_eps16": ["mobilenet_v2"],
}
"""The targets of the run below, small ones of each recipe's."""


def write_recipe(recipe: str, folder: Path) -> Path:
    """A recipe with random weights in files, some of its targets, and attacks of a step."""
    content: dict[str, Any] = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    loaded = load_experiment(RECIPES / f"{recipe}.yaml")
    named = [*KEPT[recipe], content["source"], *content["witnesses"]]
    named += [variant["source"] for variant in content.get("variants", {}).values()]
    for name in dict.fromkeys(named):
        config = loaded.models[name]
        torch.manual_seed(len(name) + sum(map(ord, name)))
        net, model = net_of(config), content["models"][name]
        prefix = "net." if config.factory else ""
        state = {f"{prefix}{key}": tensor.contiguous() for key, tensor in net.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")
        model["weights"] = str(folder / f"{name}.safetensors")
        if config.factory:
            model["args"] = {**model["args"], "pretrained": False}
        if name == "inception_v3" and not config.factory:
            model["args"] = {"transform_input": True}
    content["models"] = {name: content["models"][name] for name in dict.fromkeys(named)}
    content["targets"] = KEPT[recipe]
    groups = {name: [one for one in own if one in KEPT[recipe]] for name, own in content.get("groups", {}).items()}
    content["groups"] = {name: own for name, own in groups.items() if own}
    content["controls"] = ["label_only"] if recipe == "imagenet" else []
    for attack in content["attacks"].values():
        attack |= {"steps": 1}
    content["factories"] = str(RECIPES)
    file = folder / f"{recipe}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("recipe", FOR_IMAGENET)
def test_it_runs_to_the_end_on_random_weights_and_tiny_images(folders: Path, recipe: str) -> None:
    write_images(folders)
    file = write_recipe(recipe, folders)
    settings = ["data.train.sample=4", "compute.workers=1", "compute.chunk=2", "align.batch_size=4"]
    command = [sys.executable, "-m", "pipelines.cli", "run", str(file), "--json", "--output", str(folders / "runs")]
    command += [part for setting in settings for part in ("--set", setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with open(f"{json.loads(done.stdout)['report']}/transfer.csv") as table:
        rows = [(row["surrogate"], row["attack"], row["target"]) for row in csv.DictReader(table)]
    experiment = load_experiment(file)
    made = [surrogate.name for surrogate in surrogates_of(experiment)]
    assert {"source", "aligned"} <= set(made)
    expected = {(own, attack, target) for own in made for attack in experiment.attacks for target in KEPT[recipe]}
    assert expected <= set(rows)
