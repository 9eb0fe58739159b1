"""BatchNorm statistics for averaged weights: torch's own way to take them anew, and what is put back."""

import copy

import pytest
import torch
from looks import grey
from small_nets import cnn, mlp, tensors_of
from torch import nn
from torch.optim.swa_utils import update_bn

from align_core.refinements.statistics import refreshed


def batches(count: int = 4) -> list[torch.Tensor]:
    return [grey(6, seed)[0] for seed in range(count)]


def trained() -> nn.Sequential:
    """A network in train mode whose statistics have moved."""
    net = cnn(0).train()
    net(grey(6, 99)[0])
    return net


def test_equal_those_of_torch() -> None:
    net, averaged = trained(), cnn(5)
    averaged(grey(6, 77)[0])  # its statistics have moved, too
    state = refreshed(net, tensors_of(averaged), batches())
    torch.manual_seed(0)
    expected = copy.deepcopy(averaged)
    expected[8].p = 0.0  # dropout comes after the last BatchNorm
    update_bn(batches(), expected)
    assert state.keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(state[name], value)


def test_are_the_plain_mean_over_batches_by_hand() -> None:
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 2)).train()
    state = refreshed(net, tensors_of(net), batches(3))
    means = [float(own.double().mean()) for own in batches(3)]
    variances = [float(own.double().var()) for own in batches(3)]
    assert state["0.running_mean"].item() == pytest.approx(sum(means) / 3, rel=1e-5)
    assert state["0.running_var"].item() == pytest.approx(sum(variances) / 3, rel=1e-5)


def test_the_network_is_left_as_it_was() -> None:
    net = trained()
    net[1].momentum = 0.3
    before = tensors_of(net)
    state = refreshed(net, tensors_of(cnn(5)), batches())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert net[1].momentum == 0.3 and net[5].momentum == 0.1
    assert all(part.training for part in net.modules())
    kept = {name: value.clone() for name, value in state.items()}
    net(grey()[0])  # what was returned is not what is in use
    for name, value in state.items():
        assert torch.equal(value, kept[name])


def test_the_network_is_left_as_it_was_after_an_error() -> None:
    net = trained()
    before = tensors_of(net)
    with pytest.raises(RuntimeError):
        refreshed(net, tensors_of(cnn(5)), [grey()[0], torch.rand(2, 3, 8, 8)])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert net[1].momentum == 0.1


def test_frozen_batchnorm_keeps_its_statistics() -> None:
    net = trained()
    net[1].eval()
    state, averaged = refreshed(net, tensors_of(cnn(5)), batches()), cnn(5).state_dict()
    assert torch.equal(state["1.running_mean"], averaged["1.running_mean"])
    assert not torch.equal(state["5.running_mean"], averaged["5.running_mean"])


def test_without_batchnorm_the_state_is_returned_and_no_image_is_asked_for() -> None:
    state = tensors_of(mlp(1))
    assert refreshed(mlp(0).train(), state, iter(())) is state


def test_without_images_they_are_not_made_up() -> None:
    net = trained()
    before = tensors_of(net)
    with pytest.raises(ValueError, match="taken from training images: give some"):
        refreshed(net, tensors_of(cnn(5)), [])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
