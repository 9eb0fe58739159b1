"""Without a network, weights that have to be downloaded are refused at once, and cached ones are still found."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from torch import hub

from align_core import downloads
from align_core.downloads import hub_offline_unless_reachable, is_reachable
from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.models import build

SQUEEZENET = ModelConfig(torchvision="squeezenet1_1", weights="IMAGENET1K_V1")


@pytest.fixture(params=["silent", "closed"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """All ways out lead to a proxy that accepts connections and never answers, or that is not there."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, address)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(is_reachable, "__defaults__", (0.3,))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield address


def test_a_host_that_does_not_answer(proxy: str) -> None:
    assert not is_reachable("https://example.org/weights.pth", 0.3)


def test_any_answer_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # which answers 501 to every request
        Thread(target=server.serve_forever, daemon=True).start()
        assert is_reachable(f"http://127.0.0.1:{server.server_port}/weights.pth")
        server.shutdown()
    assert not is_reachable((tmp_path / "gone").as_uri())
    assert not is_reachable("not a url")


@pytest.mark.parametrize("name", ["resnet10t", "gcvit_xxtiny"])  # the second is not on Hugging Face's hub
def test_pretrained_weights_of_timm(proxy: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: the pretrained weights cannot be loaded here .*Check the network"):
        build(ModelConfig(timm=name, weights="pretrained"), classes=1000, channels=3)
    assert not constants.HF_HUB_OFFLINE


def test_pretrained_weights_of_torchvision(proxy: str) -> None:
    with pytest.raises(InputError, match=r"cannot be loaded here \(https://download.pytorch.org.* does not answer"):
        build(SQUEEZENET, classes=1000, channels=3)


def test_cached_weights_need_no_network(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = torchvision.models.get_model_weights("squeezenet1_1").IMAGENET1K_V1.url
    cached = Path(hub.get_dir()) / "checkpoints" / Path(url).name
    cached.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), cached)
    assert build(SQUEEZENET, classes=1000, channels=3).net.num_classes == 1000


def test_timms_cached_weights_need_no_network(proxy: str) -> None:
    cached = Path(hub.get_dir()) / "checkpoints" / Path(timm.get_pretrained_cfg("gcvit_xxtiny").url).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"")
    with pytest.raises(InputError, match=r"gcvit_xxtiny: (?!.*does not answer)"):  # timm reads the file, as it should
        build(ModelConfig(timm="gcvit_xxtiny", weights="pretrained"), classes=1000, channels=3)


def test_the_hub_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    for answers in (True, False):
        monkeypatch.setattr(downloads, "is_reachable", lambda url, answers=answers: answers)
        with hub_offline_unless_reachable():
            assert constants.HF_HUB_OFFLINE is not answers
        assert not constants.HF_HUB_OFFLINE
