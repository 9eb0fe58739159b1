"""The commit of a model from Hugging Face's hub: it is found out, said, and kept on cards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from align_core.downloads import hub_revision
from align_core.model_config import ModelConfig
from align_core.models import build
from align_core.published import as_built

FIRST, SECOND = "a" * 40, "b" * 40
NAME = "hf-hub:someone/tiny"


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], torch.nn.Module]:
    """Adds a commit to the hub's cache, as downloading it would, and makes it `main`; there is no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)

    def add(name: str, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        net = timm.create_model("test_resnet", num_classes=5)
        timm.models.save_for_hf(net, str(repository / "snapshots" / name), model_config={"num_classes": 5})
        (repository / "refs/main").write_text(name)
        return net.eval()

    return add


def logits(config: ModelConfig) -> torch.Tensor:
    return build(config, classes=5, channels=3).eval().net(torch.ones(1, 3, 160, 160))


def test_the_revision_is_that_of_the_cache_and_is_said(commit: Callable[[str, int], torch.nn.Module]) -> None:
    commit(FIRST, 0)
    config = ModelConfig(timm=NAME, weights="pretrained")
    assert hub_revision(NAME) == hub_revision("hf_hub:someone/tiny") == FIRST
    assert build(config, 5, 3).changes == (f"its weights are revision {FIRST}; `timm: {NAME}@{FIRST}` keeps to them",)


def test_a_revision_that_is_named_is_kept_to_when_main_moves(commit: Callable[[str, int], torch.nn.Module]) -> None:
    first, second = commit(FIRST, 0), commit(SECOND, 1)
    images = torch.ones(1, 3, 160, 160)
    pinned, main = (ModelConfig(timm=name, weights="pretrained") for name in (f"{NAME}@{FIRST}", NAME))
    assert torch.equal(logits(pinned), first(images)) and torch.equal(logits(main), second(images))
    assert build(pinned, 5, 3).changes == ()
    assert (hub_revision(f"{NAME}@{FIRST}"), hub_revision(NAME)) == (FIRST, SECOND)


def test_a_card_holds_the_revision(commit: Callable[[str, int], torch.nn.Module]) -> None:
    commit(FIRST, 0)
    config = ModelConfig(timm=NAME, weights="pretrained")
    card = as_built(config, 5, 3)
    assert card.timm == f"{NAME}@{FIRST}"
    commit(SECOND, 1)
    assert as_built(card, 5, 3).timm == card.timm
    assert card.structure == config.structure  # another revision is no other architecture


@pytest.mark.parametrize("name", ["resnet18.a1_in1k", "local-dir:/weights", "hf-hub:no/body"])
def test_other_names_and_models_that_are_not_there_have_none(
    commit: Callable[[str, int], torch.nn.Module], name: str
) -> None:
    assert hub_revision(name) is None
