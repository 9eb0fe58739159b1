"""BatchNorm folded into the convolutions before it: the same function in fewer operations, for networks in eval mode.

In eval mode a BatchNorm multiplies and shifts each channel by constants, which the convolution before it can do by
itself. Which of them can be folded is seen in a symbolic trace of the network (torch.fx), and the modules are replaced
in the network itself, so that whatever else it does is left as it is. The results differ in the last bits.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from align_core.models import Classifier


class Pair(NamedTuple):
    """A convolution and the BatchNorm that alone uses its output, by the names of the modules."""

    convolution: str
    batchnorm: str


class Foldable(NamedTuple):
    """The pairs of a network that are folded, and what stands in the way where there are none, unless nothing does."""

    pairs: tuple[Pair, ...]
    obstacle: str | None = None


def foldable(net: nn.Module) -> Foldable:
    """Which BatchNorms of a network are folded. It depends on the modules alone, never on a timing.

    None is in a network with depthwise convolutions, which would gain nothing: they are bound by memory, and lose a
    fast path of the library when they are given a bias.
    """
    parts = list(net.modules())
    if not any(isinstance(part, nn.BatchNorm2d) for part in parts) or any(map(_is_depthwise, parts)):
        return Foldable(())
    try:
        graph = _Tracer().trace(net)
    except (Exception, SystemExit):  # whatever Python code the network runs, torch.fx has exceptions of its own for it
        return Foldable((), "torch.fx cannot trace its forward")
    modules = dict(net.named_modules())
    called = [str(node.target) for node in graph.nodes if node.op == "call_module"]
    pairs = tuple(pair for node in graph.nodes if (pair := _pair_at(node, modules, called)))
    return Foldable(pairs, None if pairs else "no BatchNorm follows a convolution of its own")


def _pair_at(node: torch.fx.Node, modules: dict[str, nn.Module], called: Sequence[str]) -> Pair | None:
    """The pair that ends at a node of the graph, if both are called once, and nothing else uses the convolution."""
    if node.op != "call_module" or not isinstance(modules[str(node.target)], _BatchNorm):
        return None
    (source,) = node.all_input_nodes
    if source.op != "call_module" or not isinstance(modules[str(source.target)], nn.Conv2d):
        return None
    pair = Pair(str(source.target), str(node.target))
    alone = len(source.users) == 1 and all(called.count(name) == 1 for name in pair)
    return pair if alone and _fits(*map(modules.get, pair)) else None


def fold(classifier: Classifier, pairs: Sequence[tuple[str, str]]) -> Classifier:
    """Folds these BatchNorms of a network in eval mode, in place, and returns it.

    The pairs are those that `foldable` found in a network of the same architecture, so that it is decided once for all
    workers.
    """
    net = classifier.net
    for names in pairs:
        convolution, batchnorm = map(net.get_submodule, names)
        assert isinstance(convolution, nn.Conv2d) and isinstance(batchnorm, _BatchNorm)
        net.set_submodule(names[0], fuse_conv_bn_eval(convolution, batchnorm))
        net.set_submodule(names[1], _rest_of(batchnorm))
    return classifier.eval().requires_grad_(False)


class _Tracer(torch.fx.Tracer):
    """Traces through everything but convolutions and BatchNorm, those of other libraries as well."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d | _BatchNorm) or super().is_leaf_module(module, name)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


def _fits(convolution: nn.Module | None, batchnorm: nn.Module | None) -> bool:
    """Whether both are plain modules whose arithmetic is known, with statistics of their own."""
    plain = type(convolution) is nn.Conv2d and getattr(batchnorm, "track_running_stats", False)
    hooks = any(
        getattr(part, kind) for part in (convolution, batchnorm) for kind in ("_forward_hooks", "_forward_pre_hooks")
    )
    return plain and not hooks and (type(batchnorm) is nn.BatchNorm2d or hasattr(batchnorm, "act"))


def _rest_of(batchnorm: nn.Module) -> nn.Module:
    """What is left of a BatchNorm once it is folded: nothing, or the activation that timm's has inside."""
    if type(batchnorm) is nn.BatchNorm2d:
        return nn.Identity()
    drop, act = batchnorm.drop, batchnorm.act
    assert isinstance(drop, nn.Module) and isinstance(act, nn.Module)
    return nn.Sequential(copy.deepcopy(drop), copy.deepcopy(act))
