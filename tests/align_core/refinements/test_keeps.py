"""What is kept of the weights: averages, copies and samples against explicit lists, and how they are saved."""

import math
from collections.abc import Callable
from typing import Any

import habits
import pytest
import safetensors.torch
import torch
from looks import grey
from small_nets import assert_identical, cnn, tensors_of
from torch import Tensor, nn

from align_core.refinements.collect import Collect
from align_core.refinements.ema import Ema
from align_core.refinements.gathering import parameters_of
from align_core.refinements.scaled import Scaled
from align_core.refinements.statistics import refreshed
from align_core.refinements.swa import Swa
from align_core.refinements.swag import Swag
from align_core.weights import State, to_bytes

PER_EPOCH, STEPS = 7, 14  # 7 steps in each of two epochs


def unchanged(state: State) -> State:
    return state


def walked(keep: Any, steps: int = STEPS, network: nn.Module | None = None) -> tuple[nn.Module, list[State]]:
    """A network whose weights are drawn anew at every step, and the list of them."""
    net = cnn(0).train() if network is None else network
    generator = torch.Generator().manual_seed(3)
    states = []
    for step in range(1, steps + 1):
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator))
            else:
                value.fill_(step)
        keep.gather(net, step)
        states.append(tensors_of(net))
    return net, states


def mean_of(states: list[State], name: str) -> Tensor:
    return sum(own[name].double() for own in states) / len(states)


def is_parameter(name: str) -> bool:
    return name.endswith(("weight", "bias"))


class TestTimes:
    @pytest.mark.parametrize(
        ("per_epoch", "expected"),
        [(1, [7, 14]), (2, [4, 7, 11, 14]), (3, [3, 5, 7, 10, 12, 14]), (7, [*range(1, 15)]), (1000, [*range(1, 15)])],
    )
    def test_weights_are_gathered_at_equal_distances_the_last_time_at_the_end_of_an_epoch(
        self, per_epoch: int, expected: list[int]
    ) -> None:
        keep = Collect(PER_EPOCH, STEPS, 0, per_epoch=per_epoch)
        walked(keep)
        assert [int(own["1.num_batches_tracked"]) for own in keep.copies] == expected
        assert keep.gathered == len(expected)

    @pytest.mark.parametrize(("start", "expected"), [(0.0, [4, 7, 11, 14]), (0.5, [11, 14]), (0.99, [14])])
    def test_swa_may_start_late(self, start: float, expected: list[int]) -> None:
        keep = Swa(PER_EPOCH, STEPS, 0, per_epoch=2, start=start)
        net, states = walked(keep)
        (kept,) = keep.networks(net, unchanged)
        chosen = [states[step - 1] for step in expected]
        torch.testing.assert_close(kept["0.weight"].double(), mean_of(chosen, "0.weight"), rtol=1e-5, atol=1e-6)


class TestEma:
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
    def test_is_the_sum_of_falling_shares(self, decay: float) -> None:
        keep = Ema(PER_EPOCH, STEPS, 0, decay=decay)
        net, states = walked(keep, steps=6)
        (kept,) = keep.networks(net, unchanged)
        shares = [decay**5, *[(1 - decay) * decay ** (5 - step) for step in range(1, 6)]]
        assert sum(shares) == pytest.approx(1)
        for name, value in kept.items():
            if not value.is_floating_point():
                assert value.item() == 6
                continue
            expected = sum(share * own[name].double() for share, own in zip(shares, states, strict=True))
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)  # running statistics, too
        assert kept.keys() == net.state_dict().keys()

    def test_before_any_step_it_is_the_network(self) -> None:
        (kept,) = Ema(PER_EPOCH, STEPS, 0, decay=0.9).networks(cnn(0), unchanged)
        assert_identical(kept, cnn(0).state_dict())


class TestSwa:
    def test_is_the_mean_of_parameters_with_statistics_taken_anew(self) -> None:
        keep = Swa(PER_EPOCH, STEPS, 0, per_epoch=3, start=0.0)
        net, states = walked(keep)
        chosen = [states[step - 1] for step in (3, 5, 7, 10, 12, 14)]
        batches = [grey(6, seed)[0] for seed in range(3)]
        (kept,) = keep.networks(net, lambda state: refreshed(net, state, batches))
        expected = cnn(0)
        expected.load_state_dict({name: mean_of(chosen, name).to(value) for name, value in states[0].items()})
        expected[8].p = 0.0
        torch.optim.swa_utils.update_bn(batches, expected)
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-6)
        assert_identical(tensors_of(net), states[-1])

    def test_of_no_weights_it_is_the_network(self) -> None:
        (kept,) = Swa(PER_EPOCH, STEPS, 0, per_epoch=1, start=0.0).networks(cnn(0), unchanged)
        assert_identical(kept, cnn(0).state_dict())


class TestCollect:
    def test_are_copies_with_their_statistics_and_without_the_first_weights(self) -> None:
        keep = Collect(PER_EPOCH, STEPS, 0, per_epoch=2)
        net, states = walked(keep)
        kept = keep.networks(net, unchanged)
        assert len(kept) == 4
        for own, step in zip(kept, (4, 7, 11, 14), strict=True):
            assert_identical(own, states[step - 1])

    def test_of_no_weights_it_is_the_network(self) -> None:
        (kept,) = Collect(PER_EPOCH, STEPS, 0, per_epoch=1).networks(cnn(0), unchanged)
        assert_identical(kept, cnn(0).state_dict())


class TestSwag:
    def kept(self, samples: int, scale: float, seed: int = 0) -> tuple[list[State], list[State], nn.Module]:
        keep = Swag(PER_EPOCH, STEPS, seed, per_epoch=2, samples=samples, scale=scale)
        net, states = walked(keep)
        return keep.networks(net, unchanged), [states[step - 1] for step in (4, 7, 11, 14)], net

    def test_without_a_scale_it_is_the_mean(self) -> None:
        kept, chosen, net = self.kept(samples=2, scale=0.0)
        assert len(kept) == 2
        for own in kept:
            assert own.keys() == net.state_dict().keys()
            for name, value in own.items():
                if is_parameter(name):
                    torch.testing.assert_close(value.double(), mean_of(chosen, name), rtol=1e-5, atol=1e-6)
                else:
                    assert torch.equal(value, net.state_dict()[name])

    def test_spreads_as_the_weights_do(self) -> None:
        """Of each weight: mean and deviation over many samples, against those of the list of weights."""
        keep = Swag(PER_EPOCH, STEPS, 0, per_epoch=2, samples=4000, scale=1.5)
        net, states = walked(keep, network=nn.Linear(3, 2))
        kept, chosen = keep.networks(net, unchanged), [states[step - 1] for step in (4, 7, 11, 14)]
        for name in ("bias", "weight"):
            drawn = torch.stack([own[name] for own in kept]).double()
            listed = torch.stack([own[name] for own in chosen]).double()
            deviation = (listed - listed.mean(dim=0)).square().mean(dim=0).sqrt()
            assert ((drawn.mean(dim=0) - listed.mean(dim=0)).abs() < 5 * 1.5 * deviation / math.sqrt(4000)).all()
            torch.testing.assert_close(drawn.std(dim=0), 1.5 * deviation, rtol=0.06, atol=0)
        first, second = (torch.stack([own["bias"][place] for own in kept]) for place in (0, 1))
        assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1].item()) < 0.08  # every weight has its own draw

    def test_the_seed_decides_the_draws_and_nothing_else_does(self) -> None:
        torch.manual_seed(1)
        first, _, _ = self.kept(samples=2, scale=1.5)
        torch.manual_seed(2)
        same, _, _ = self.kept(samples=2, scale=1.5)
        other, _, _ = self.kept(samples=2, scale=1.5, seed=1)
        assert_identical(first[0], same[0])
        assert not torch.equal(first[0]["0.weight"], first[1]["0.weight"])
        assert not torch.equal(first[0]["0.weight"], other[0]["0.weight"])

    def test_all_have_the_statistics_of_the_mean(self) -> None:
        keep = Swag(PER_EPOCH, STEPS, 0, per_epoch=2, samples=2, scale=1.5)
        net, states = walked(keep)
        batches = [grey(6, seed)[0] for seed in range(3)]
        kept = keep.networks(net, lambda state: refreshed(net, state, batches))
        chosen = [states[step - 1] for step in (4, 7, 11, 14)]
        mean = {name: mean_of(chosen, name).to(value) for name, value in states[0].items()}
        expected = refreshed(net, mean, batches)
        for own in kept:
            torch.testing.assert_close(own["5.running_var"], expected["5.running_var"], rtol=1e-4, atol=1e-5)

    def test_of_weights_that_stand_still_all_are_these(self) -> None:
        keep = Swag(PER_EPOCH, STEPS, 0, per_epoch=7, samples=2, scale=1.5)
        net = cnn(0)
        for step in range(1, 8):
            keep.gather(net, step)
        for own in keep.networks(net, unchanged):
            for name, value in net.state_dict().items():
                torch.testing.assert_close(own[name], value)


class TestScaled:
    def test_convolutions_alone_are_scaled(self) -> None:
        net = nn.Sequential(cnn(0), nn.Conv1d(2, 2, 1), nn.ConvTranspose2d(2, 2, 1), nn.LazyConv2d(2, 1))
        net[3](torch.rand(1, 3, 2, 2))  # after which it is a plain convolution
        keep = Scaled(PER_EPOCH, STEPS, 0, factor=0.93)
        keep.gather(net, 1)
        (kept,) = keep.networks(net, unchanged)
        scaled = {"0.0.weight", "0.4.weight", "3.weight"}
        for name, value in net.state_dict().items():
            assert torch.equal(kept[name], 0.93 * value if name in scaled else value), name
        assert keep.state() == {}

    def test_a_convolution_under_two_names_is_scaled_once_under_both(self) -> None:
        shared = nn.Conv2d(1, 1, 3)
        net = nn.ModuleDict({"first": shared, "second": shared})
        (kept,) = Scaled(PER_EPOCH, STEPS, 0, factor=0.5).networks(net, unchanged)
        for name in ("first.weight", "second.weight"):
            torch.testing.assert_close(kept[name], 0.5 * shared.weight.detach())


KEEPS: dict[str, Callable[[], Any]] = {
    "ema": lambda: Ema(PER_EPOCH, STEPS, 0, decay=0.7),
    "swa": lambda: Swa(PER_EPOCH, STEPS, 0, per_epoch=3, start=0.1),
    "collect": lambda: Collect(PER_EPOCH, STEPS, 0, per_epoch=3),
    "swag": lambda: Swag(PER_EPOCH, STEPS, 0, per_epoch=3, samples=3, scale=1.5),
    "scaled": lambda: Scaled(PER_EPOCH, STEPS, 0, factor=0.93),
}


@pytest.mark.parametrize("name", KEEPS)
class TestAll:
    def test_go_on_from_a_file_as_if_nothing_had_happened(self, name: str) -> None:
        """In which names are sorted, and SWAG's draws must not be."""
        unbroken = KEEPS[name]()
        net, states = walked(unbroken)
        for stop in (0, 2, 9):
            broken, resumed = KEEPS[name](), KEEPS[name]()
            walked(broken, steps=stop)
            if stop:
                resumed.restore(safetensors.torch.load(to_bytes(broken.state())))
            follower = cnn(0).train()
            for step in range(stop, STEPS):
                follower.load_state_dict(states[step])
                resumed.gather(follower, step + 1)
            expected = unbroken.networks(net, unchanged)
            found = resumed.networks(follower, unchanged)
            assert len(found) == len(expected)
            for own, wanted in zip(found, expected, strict=True):
                assert_identical(own, wanted)

    def test_a_state_is_not_shared_by_those_who_restore_it(self, name: str) -> None:
        first = KEEPS[name]()
        walked(first, steps=7)
        state = first.state()
        kept = {key: value.clone() for key, value in state.items()}
        second = KEEPS[name]()
        second.restore(state)
        walked(second, steps=7)
        assert_identical(state, kept)

    def test_a_tied_weight_is_kept_under_both_names(self, name: str) -> None:
        keep = KEEPS[name]()
        torch.manual_seed(0)
        tied = habits.Tied().train()
        net, _ = walked(keep, network=tied)
        for kept in keep.networks(net, unchanged):
            loaded = habits.Tied()
            loaded.load_state_dict(kept)
            assert kept.keys() == net.state_dict().keys()
            if name in ("ema", "swa", "collect"):
                assert torch.equal(kept["head.weight"], kept["same_head.weight"])
            elif name == "swag":  # not the last weights
                assert not torch.equal(loaded.head.weight, net.head.weight)


def test_parameters_are_those_of_all_names() -> None:
    assert parameters_of(habits.Tied()).keys() >= {"head.weight", "same_head.weight"}
    assert not any(own.requires_grad for own in parameters_of(cnn(0)).values())
    assert "1.running_mean" not in parameters_of(cnn(0))
