"""Models are inspected before any work, and loaded by workers as they were tried."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from coloured import CLASSES, weights_of, write_coloured
from one_worker import WORKER
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from align_core.errors import InputError
from align_core.models import load
from pipelines.compute.loading import LoadedNetworks
from pipelines.run.request import Request, open_blueprint
from pipelines.stages import payload
from pipelines.stages.blueprint import Blueprint

NETS = """
import functools
import torch
from torch import nn


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(256, 10)

    def forward(self, images):
        return self.head(self.body(images).view(-1, 256))


class InNumpy(Viewing):
    def forward(self, images):
        features = self.body(images)
        self.seen = features.detach().numpy()
        return self.head(features.flatten(1))


class Constant(Viewing):
    def forward(self, images):
        return super().forward(images.mean(1, keepdim=True).expand(-1, 3, -1, -1).detach()) + 0 * images.sum()


@functools.cache
def body_of_state():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Conv2d(3, 4, 3, 2, 1).state_dict()


def with_body():
    net = Viewing()
    net.body.load_state_dict(body_of_state())
    return net


cached = functools.cache(Viewing)
SHARED = []


class Sharing(Viewing):
    def __init__(self):
        super().__init__()
        if SHARED:
            self.head.bias = nn.Parameter(SHARED[0])


class Spare(Viewing):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class InEvalOnly(Viewing):
    def __init__(self):
        super().__init__()
        self.late = nn.Linear(10, 10)

    def forward(self, images):
        logits = super().forward(images)
        return logits if self.training else logits + 0 * self.late(logits)


class Loose(Viewing):
    def __init__(self):
        super().__init__()
        self.loose = nn.Parameter(torch.zeros(3))
"""

MORE = {"Spare": {"spare": nn.Linear(2, 2)}, "InEvalOnly": {"late": nn.Linear(10, 10)}}


def written(folder: Path, module: str, **kinds: str) -> Path:
    """The coloured experiment, some of whose models come from the factories above, in a module of this name."""
    file = write_coloured(folder)
    (folder / f"{module}.py").write_text(NETS)
    content = yaml.safe_load(file.read_text())
    for seed, (name, kind) in enumerate(kinds.items()):
        torch.manual_seed(seed)
        net = nn.ModuleDict({"body": nn.Conv2d(3, 4, 3, 2, 1), "head": nn.Linear(256, 10)} | MORE.get(kind, {}))
        weights_of(net, folder / f"{name}.safetensors")
        content["models"][name]["factory"] = f"{module}:{kind}"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))

    def of(file: Path, *overrides: str) -> Blueprint:
        return open_blueprint(Request(file, overrides=list(overrides), quiet=True))

    return of


def test_workers_hold_a_network_in_the_layout_in_which_it_works(tmp_path: Path, opened: Any) -> None:
    blueprint = opened(written(tmp_path, "nets_that_view", net_a="Viewing"))
    networks = blueprint.networks
    assert {name: network.channels_last for name, network in networks.items()} == {
        "net_a": False, "net_b": True, "net_c": True, "aligned": False,
    }  # fmt: skip
    images_BCHW = torch.rand(3, 3, 16, 16)
    plain = load(networks["net_a"].config, 10, 3)
    held = payload.network_loader(blueprint).load("net_a", "cpu")
    assert torch.equal(held(images_BCHW), plain(images_BCHW))


SHARED = r"factory .*shares parameters with it.* in a cache"


def test_a_factory_that_returns_one_network_at_every_call(tmp_path: Path, opened: Any) -> None:
    with pytest.raises(InputError, match=rf"models\.net_c: {SHARED}"):
        opened(written(tmp_path, "nets_in_a_cache", net_c="cached"))


def test_networks_that_share_a_parameter_while_a_worker_holds_both(tmp_path: Path, opened: Any) -> None:
    blueprint = opened(written(tmp_path, "nets_that_share", net_a="Sharing", net_c="Sharing"))
    networks = LoadedNetworks(payload.network_loader(blueprint), "cpu")
    sys.modules["nets_that_share"].SHARED.append(torch.zeros(10))
    with pytest.raises(InputError, match=SHARED):
        networks.mean_of(["net_a", "net_c"])


def test_a_network_that_bfloat16_breaks(tmp_path: Path, opened: Any) -> None:
    file = written(tmp_path, "nets_in_numpy", net_c="InNumpy")
    opened(file)
    with pytest.raises(InputError, match=r"models\.net_c: .*BFloat16"):
        opened(file, "compute.precision=bf16")


@pytest.mark.parametrize("kind", ["Spare", "InEvalOnly", "Loose"])
def test_data_parallel_workers_are_told_of_parameters_that_no_step_uses(tmp_path: Path, opened: Any, kind: str) -> None:
    file = written(tmp_path, f"nets_with_{kind.lower()}", net_a=kind)
    if kind == "Loose":
        content = load_file(tmp_path / "net_a.safetensors")
        save_file(content | {"loose": torch.zeros(3)}, tmp_path / "net_a.safetensors")
    blueprint = opened(file, "variants={plain: {source: net_b, witnesses: [net_a]}}")
    told = {
        making.name: payload.fine_tune_of(blueprint, making, WORKER).unused_parameters
        for making in blueprint.alignments()
        if making.name in ("aligned", "plain")
    }
    assert told == {"aligned": True, "plain": False}  # net_a is a witness there, which takes no step


def test_networks_that_take_another_number_of_channels(tmp_path: Path, opened: Any) -> None:
    """Nothing in the settings shows it, so the images decide, and the message says what to write."""
    file = written(tmp_path, "nets_of_colours", net_a="Viewing", net_b="Viewing", net_c="Viewing")
    for image in tmp_path.glob("t*/*/*.png"):
        Image.open(image).convert("L").save(image)
    with pytest.raises(InputError, match=r"models\.net_a: .* It does take images of 3 channels: is data\.channels: 3"):
        opened(file)
    with pytest.raises(InputError, match=r"but got 1 channels instead$"):
        opened(file, "data.channels=1")
    assert opened(file, "data.channels=3").inspected.shape == (3, 16, 16)


def test_a_network_of_no_gradient_is_not_told_of_channels_that_work_no_better(tmp_path: Path, opened: Any) -> None:
    file = written(tmp_path, "nets_that_are_constant", net_a="Constant")
    for image in tmp_path.glob("t*/*/*.png"):
        Image.open(image).convert("L").save(image)
    with pytest.raises(InputError, match=r"models\.net_a: .* saturated probabilities instead of logits\?$"):
        opened(file)


class TestTrainingOfWhatAFactoryReturns:
    """Nothing is kept of random weights; a factory may return others, which are the same at every call."""

    @pytest.mark.parametrize(
        ("kept", "said"),
        [
            ("freeze: [body.*]", "freeze"), ("batchnorm: frozen", "batchnorm: frozen"),
            ("layer_decay: 0.5", "layer_decay"),
        ],
    )  # fmt: skip
    def test_random_weights_are_not_kept(self, tmp_path: Path, opened: Any, kept: str, said: str) -> None:
        file = written(tmp_path, "nets_that_are_random", net_c="Viewing")
        with pytest.raises(InputError, match=rf"models\.net_c: train: {said} keeps random weights as they are: the"):
            opened(file, f"models.net_c={{factory: 'nets_that_are_random:Viewing', train: {{{kept}}}}}")

    @pytest.mark.parametrize("kept", ["freeze: [body.*]", "batchnorm: frozen", "layer_decay: 0.5", "epochs: 2"])
    def test_weights_that_the_factory_returns_are(self, tmp_path: Path, opened: Any, kept: str) -> None:
        file = written(tmp_path, "nets_with_a_body", net_c="Viewing")
        blueprint = opened(file, f"models.net_c={{factory: 'nets_with_a_body:with_body', train: {{{kept}}}}}")
        assert [making.name for making in blueprint.trainings()] == ["net_c"]


class TestChangedWhileARunIsAtWork:
    """What workers read must be what was inspected: it would otherwise stand in tables under another fingerprint."""

    def test_a_test_image(self, tmp_path: Path, opened: Any) -> None:
        images = payload.test_images(opened(write_coloured(tmp_path)))
        assert images.read(0).shape == (40, 3, 16, 16)
        shutil.copy(tmp_path / "test" / CLASSES[1] / "000.png", tmp_path / "test" / CLASSES[4] / "002.png")
        with pytest.raises(InputError, match=rf"data\.test: image {CLASSES[4]}/002\.png is not as it was .*--rehash"):
            images.read(0)

    def test_weights(self, tmp_path: Path, opened: Any) -> None:
        loader = payload.network_loader(opened(write_coloured(tmp_path)))
        loader.load("net_c", "cpu")
        shutil.copy(tmp_path / "net_a.safetensors", tmp_path / "net_c.safetensors")
        with pytest.raises(InputError, match=r"models\.net_c: its weights are not as they were"):
            loader.load("net_c", "cpu")
