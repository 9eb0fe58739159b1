"""Features and places of real architectures are what the networks' own code makes of them, and nothing is disturbed."""

import copy
import gc
from typing import Any

import pytest
import timm
import torch
from habits import Plain
from small_nets import cnn, tensors_of
from torch import Tensor, nn

from align_core.errors import InputError
from align_core.features import Taps, as_map, find_last_layer, find_map_layer, logits_at_places
from align_core.losses.known import read_losses
from align_core.models import Classifier, copy_of
from align_core.sight import Sight, sight_of, taught

SWIN = {"window_size": 2, "embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
SIDE = 64

# timm's name, its arguments, the last layer, the feature map and the LayerNorm behind it
NETWORKS: dict[str, tuple[str, dict[str, Any], str, str, str | None]] = {
    "resnet": ("test_resnet", {}, "fc", "layer4", None),
    "class token": ("test_vit", {"img_size": SIDE}, "head", "norm", None),
    "pooled tokens": ("test_vit", {"img_size": SIDE, "global_pool": "avg"}, "head", "norm", "fc_norm"),
    "swin": ("swin_tiny_patch4_window7_224", {"img_size": SIDE, **SWIN}, "head.fc", "norm", None),
    "convnext": ("test_convnext", {}, "head.fc", "norm_pre", "head.norm"),
    "mobilenet": ("mobilenetv3_small_050", {}, "classifier", "", None),
}
WITH_PLACES = [name for name, own in NETWORKS.items() if own[3]]


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    timm_name, arguments, *_ = NETWORKS[name]
    return timm.create_model(timm_name, num_classes=5, **arguments).eval()


def images(count: int = 3, side: int = SIDE) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


class Scaled(nn.Module):
    """Changes what its last layer returns."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.body, self.head, self.in_place = Plain().body, nn.Linear(6, 4), in_place

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images_BCHW))
        return logits.mul_(3) if self.in_place else 3 * logits


class ReluOutside(nn.Module):
    """Writes over its feature map with a function that is no layer, as torchvision's DenseNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.head(self.body(images_BCHW).relu_().mean(dim=(2, 3)))


VGG = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 7), nn.ReLU(), nn.Linear(7, 5))


class TestFeatures:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_are_what_the_networks_own_head_takes(self, name: str) -> None:
        net = built(name)
        last = find_last_layer(net, images(1))
        assert last == NETWORKS[name][2]
        taps = Taps(net, last)
        logits = net(images())
        expected = net.forward_head(net.forward_features(images()), pre_logits=True)
        assert torch.equal(taps.features_BD, expected)
        assert torch.equal(net.get_submodule(last)(taps.features_BD), logits)

    def test_of_a_small_network_in_a_classifier(self) -> None:
        net = cnn(0).eval()
        classifier = Classifier(net, (0.5,), (0.2,), input_size=8)
        assert find_last_layer(classifier, torch.rand(1, 1, 12, 12)) == "net.9"
        taps = Taps(classifier, "net.9")
        pixels = torch.rand(3, 1, 8, 8)
        classifier(pixels)
        assert torch.equal(taps.features_BD, net[:9]((pixels - 0.5) / 0.2))

    def test_of_a_convolution_over_one_pixel(self) -> None:
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.Flatten())
        assert find_last_layer(net, images(1, 8)) == "2"
        taps = Taps(net, "2", *find_map_layer(net, images(1, 8)))
        logits = net(images(3, 8))
        assert torch.equal(taps.features_BD, net[:2](images(3, 8)).flatten(1))
        torch.testing.assert_close(taps.places_BKHW, net[2](net[0](images(3, 8))))
        torch.testing.assert_close(taps.places_BKHW.mean(dim=(2, 3)), logits)

    def test_are_those_of_the_latest_pass_with_its_gradient(self) -> None:
        net = built("resnet")
        taps = Taps(net, "fc")
        net(images())
        pixels = images(2).requires_grad_()
        net(pixels)
        assert taps.features_BD.shape == (2, 96) and taps.features_BD.dtype == torch.float32
        (gradient,) = torch.autograd.grad(taps.features_BD.sum(), pixels)
        assert gradient.abs().max() > 0
        with torch.no_grad():
            net(images())
        assert taps.features_BD.shape == (3, 96) and not taps.features_BD.requires_grad

    def test_of_a_network_in_bf16_are_float32(self) -> None:
        classifier = Classifier(built("resnet"), (0.5,) * 3, (0.2,) * 3)
        classifier.precision = "bf16"
        layers = find_map_layer(classifier, images(1))
        assert layers == ("net.layer4", None)
        taps = Taps(classifier, find_last_layer(classifier, images(1)), *layers)
        with torch.no_grad():
            classifier(images())
        assert taps.features_BD.dtype == taps.places_BKHW.dtype == torch.float32

    @pytest.mark.parametrize("in_place", [False, True])
    def test_are_refused_where_logits_are_changed_after_the_last_layer(self, in_place: bool) -> None:
        with pytest.raises(InputError, match="no linear layer or convolution returns its logits unchanged; choose a"):
            find_last_layer(Scaled(in_place).eval(), images(1, 8))


class TestPlaces:
    @pytest.mark.parametrize("name", WITH_PLACES)
    def test_are_found(self, name: str) -> None:
        assert find_map_layer(built(name), images(1)) == NETWORKS[name][3:]

    @pytest.mark.parametrize("name", ["resnet", "swin"])
    def test_of_a_network_that_averages_places_have_its_logits_as_their_mean(self, name: str) -> None:
        net = built(name)
        taps = Taps(net, *NETWORKS[name][2:])
        logits = net(images())
        torch.testing.assert_close(taps.places_BKHW.mean(dim=(2, 3)), logits)

    @pytest.mark.parametrize("name", WITH_PLACES)
    def test_are_the_heads_own_where_all_places_are_alike(self, name: str) -> None:
        """A map that holds the same values everywhere is predicted as a whole as it is at each place."""
        net = built(name)
        taps = Taps(net, *NETWORKS[name][2:])
        net(images())
        layer = net.get_submodule(NETWORKS[name][3])
        maps: list[Tensor] = []
        handle = layer.register_forward_hook(lambda _, __, output: maps.append(output))
        net(images())
        handle.remove()
        expected = torch.empty_like(taps.places_BKHW)
        for y in range(expected.shape[2]):
            for x in range(expected.shape[3]):
                alike = as_map(maps[0])[:, :, y : y + 1, x : x + 1].expand_as(as_map(maps[0]))
                if maps[0].dim() == 3:  # tokens, the class token among them
                    alike = as_map(maps[0])[:, :, y, x][:, None].expand_as(maps[0])
                elif name == "swin":
                    alike = alike.permute(0, 2, 3, 1)
                expected[:, :, y, x] = net.forward_head(alike)
        torch.testing.assert_close(taps.places_BKHW, expected)

    def test_leave_out_the_class_token_and_keep_the_order_of_patches(self) -> None:
        tokens = torch.arange(2 * 11 * 3.0).view(2, 11, 3)  # two tokens beside 3 x 3 patches
        found = as_map(tokens)
        assert found.shape == (2, 3, 3, 3)
        for y in range(3):
            for x in range(3):
                assert torch.equal(found[:, :, y, x], tokens[:, 2 + 3 * y + x])

    def test_channels_may_come_last(self) -> None:
        last = torch.rand(2, 4, 4, 6)
        assert torch.equal(as_map(last), last.permute(0, 3, 1, 2))
        assert torch.equal(as_map(last.permute(0, 3, 1, 2)), last.permute(0, 3, 1, 2))

    def test_logits_at_places_are_the_last_layers(self) -> None:
        layer, map_ = nn.Linear(6, 4), torch.rand(2, 6, 3, 3)
        found = logits_at_places(map_, layer.weight, layer.bias)
        torch.testing.assert_close(found[:, :, 1, 2], layer(map_[:, :, 1, 2]))
        torch.testing.assert_close(
            logits_at_places(map_, layer.weight, None)[0, :, 0, 0], layer.weight @ map_[0, :, 0, 0]
        )

    @pytest.mark.parametrize(
        ("network", "message"),
        [
            (VGG, "no layer returns 7 values at several places, which its last layer takes"),
            (nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(216, 5)), "no layer returns 216 values"),
            (ReluOutside(), "takes is neither the mean of the places that body returns nor a token beside"),
            (Scaled(in_place=True), "its features cannot be found"),
        ],
        ids=["two linear layers", "flattened map", "relu outside", "scaled logits"],
    )
    def test_refusals(self, network: nn.Module, message: str) -> None:
        with pytest.raises(InputError, match=message):
            find_map_layer(network.eval(), images(1, 8))


class TestNothingChanges:
    @pytest.mark.parametrize("name", ["resnet", "class token", "convnext"])
    def test_outputs_modes_weights_and_random_numbers(self, name: str) -> None:
        net, untouched = built(name), built(name)
        net.train()
        next(iter(net.children())).eval()
        modes = [part.training for part in net.modules()]
        needs = [own.requires_grad for own in net.parameters()]
        teacher = built(name)
        expected_random = torch.get_rng_state()
        sight, taps = sight_of(net, [teacher], read_losses(["hint", "local"]), images(1))
        assert isinstance(sight, Sight) and len(taps) == 1
        assert torch.equal(torch.get_rng_state(), expected_random)
        assert [part.training for part in net.modules()] == modes
        assert [own.requires_grad for own in net.parameters()] == needs
        for own, value in tensors_of(untouched).items():
            assert torch.equal(net.state_dict()[own], value)
        assert torch.equal(net.eval()(images()), untouched(images()))

    def test_a_network_outlives_those_who_watched_it(self) -> None:
        """As witnesses do, which are loaded once for many alignments: hooks must not pile up."""
        net = built("convnext")
        for _ in range(3):
            taps = Taps(net, *NETWORKS["convnext"][2:])
        del taps
        gc.collect()
        assert sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in net.modules()) == 0

    def test_a_network_that_is_watched_can_be_copied(self) -> None:
        net = built("resnet")
        taps = Taps(net, *NETWORKS["resnet"][2:])
        net(images())
        kept = taps.features_BD
        copied = copy_of(net)
        assert torch.equal(copied(images(2)), net(images(2)))
        net(images())
        assert torch.equal(taps.features_BD, kept)
        copied(images(1))
        assert len(taps.features_BD) == 3  # the copy's passes are not those of the network
        copy.deepcopy(copied)


class TestSight:
    IMAGE = torch.full((1, 3, 8, 8), 0.5)

    def nets(self, *widths: int) -> list[nn.Module]:
        torch.manual_seed(0)
        return [
            nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))
            for width in widths
        ]

    def test_of_logits_alone_looks_at_nothing_else(self) -> None:
        source, *teachers = self.nets(6, 5)
        sight, taps = sight_of(source, teachers, read_losses("kl"), None)
        logits, features, places = sight(images(2, 8))
        assert taps == [None] and features == [] and places is None
        assert torch.equal(logits, source(images(2, 8)))
        assert [name for name, _ in sight.named_parameters()] == [
            f"source.{own}" for own, _ in source.named_parameters()
        ]

    def test_features_are_projected_to_each_teachers_width_where_a_loss_needs_it(self) -> None:
        source, *teachers = self.nets(6, 5, 6, 9)
        sight, taps = sight_of(source, teachers, read_losses("hint"), self.IMAGE)
        _, features, places = sight(images(2, 8))
        assert [own.shape for own in features] == [(2, 5), (2, 6), (2, 9)] and places is None
        own = source[:4](images(2, 8))
        first, same, third = sight.projections
        torch.testing.assert_close(features[0], own @ first.weight.T + first.bias)
        torch.testing.assert_close(features[1], own)
        assert isinstance(same, nn.Identity) and third.bias is not None
        for teacher, tap in zip(teachers, taps, strict=True):
            seen = taught(teacher, tap, images(2, 8))
            assert torch.equal(seen.features_BD, teacher[:4](images(2, 8)))
            assert torch.equal(seen.logits_BK, teacher(images(2, 8)))
            assert not seen.logits_BK.requires_grad and seen.places_BKHW is None

    @pytest.mark.parametrize("losses", ["rkd", "pkt", ["kl", "local"]])
    def test_features_are_not_projected_for_losses_that_take_any_width(self, losses: Any) -> None:
        source, *teachers = self.nets(6, 5)
        sight, _ = sight_of(source, teachers, read_losses(losses), self.IMAGE)
        assert not list(sight.projections.parameters())
        _, features, places = sight(images(2, 8))
        torch.testing.assert_close(features[0], source[:4](images(2, 8)))
        assert (places is not None) == (losses == ["kl", "local"])

    def test_projections_are_drawn_from_torchs_random_numbers(self) -> None:
        source, *teachers = self.nets(6, 5)
        weights = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            sight, _ = sight_of(source, teachers, read_losses("hint"), self.IMAGE)
            weights.append(sight.projections[0].weight)
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])

    def test_a_network_without_features_is_refused_by_the_name_of_the_loss(self) -> None:
        source, teacher = self.nets(6, 5)
        with pytest.raises(InputError, match="loss hint: its features cannot be found"):
            sight_of(source, [teacher, Scaled(in_place=False)], read_losses(["kl", "hint"]), self.IMAGE)
        with pytest.raises(InputError, match="loss local: it cannot predict at places of the image"):
            sight_of(ReluOutside(), [teacher], read_losses("local"), self.IMAGE)

    def test_the_shape_of_images_must_be_known(self) -> None:
        source, teacher = self.nets(6, 5)
        with pytest.raises(ValueError, match="losses that compare features need the shape of the images"):
            sight_of(source, [teacher], read_losses("hint"), None)
