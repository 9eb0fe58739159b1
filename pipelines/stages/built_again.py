"""Builds the network of a factory a second time, as every worker will, and refuses one that is then another.

Both networks have the same weights, so that they differ in no more than what the factory draws at random beside these.
"""

import random
from fnmatch import fnmatchcase

import numpy as np
import torch
from torch import Tensor

from align_core.errors import InputError
from align_core.model_config import ModelConfig
from align_core.models import Classifier, build, predicting
from align_core.own_code import own_code
from align_core.trial import random_images
from align_core.weights import hash_state

_OTHER_SEED = 20_240_925
_ROUNDING = 1e-5  # of the largest logit: a library may add in another order where a tensor lies elsewhere in memory


def check_built_again(
    config: ModelConfig, classifier: Classifier, digest: str, classes: int, shape: tuple[int, int, int]
) -> None:
    """Calls the factory of a model again under other random states, and compares what it returns.

    Args:
        config: a model with a factory.
        classifier: as the factory returned it and its weights were loaded, not yet used; it is left as it was.
        digest: the hash of the weights that the factory brings; "" where it brings none.
        classes: number of classes K.
        shape: channels, height and width of the images.

    Raises InputError where the two calls bring other weights, or a training would keep weights that they draw anew, or
    the logits differ although the weights are the same.
    """
    with own_code("building it again"):  # which puts the random states back
        _seed()
        again = build(config, classes, shape[0])
    if digest and hash_state(again.net) != digest:
        raise InputError(
            f"the factory {config.factory} returns other weights at every call, so that `weights: none` cannot stand "
            "for any. Let it read its weights from a file, or give `weights` or `train`"
        )
    _check_kept(config, classifier, again)
    _check_logits(config, classifier, again, random_images(shape))


def _check_kept(config: ModelConfig, classifier: Classifier, again: Classifier) -> None:
    """A training that keeps weights needs some: a factory may return them, or random ones, which differ each time.

    Of a library's models, the settings alone say it.
    """
    train = config.train
    kept = [key for key, is_set in train.keeps.items() if is_set] if train is not None else []
    if train is None or config.weights is not None or not kept:
        return
    own, other = (dict(one.net.named_parameters(remove_duplicate=False)) for one in (classifier, again))
    drawn = {name for name, value in own.items() if name not in other or not value.equal(other[name])}
    if "freeze" in kept:
        is_random = any(fnmatchcase(name, pattern) for name in drawn for pattern in train.freeze)
    else:  # where no more than the classifier is drawn anew, the rest was trained
        is_random = drawn >= {name for name, value in own.items() if value.dim() > 1}
    if is_random:
        raise InputError(
            f"train: {kept[0]} keeps random weights as they are: the factory {config.factory} draws them anew at every "
            "call. Name the `weights` that the training starts from"
        )


def _check_logits(config: ModelConfig, classifier: Classifier, again: Classifier, images_BCHW: Tensor) -> None:
    """Says nothing of a network that fails to predict, or never predicts the same: its trial says what is wrong."""
    try:
        one_BK = _logits(classifier, images_BCHW)
    except InputError:
        return
    again.precision = classifier.precision
    try:
        with own_code("loading the same weights"):
            again.net.load_state_dict(classifier.net.state_dict())
    except InputError:
        how = "two of them have other layers"
    else:
        other_BK = _logits(again, images_BCHW)
        if _are_alike(one_BK, other_BK) or not torch.equal(one_BK, _logits(classifier, images_BCHW)):
            return
        how = "two of them return different logits for an image although their weights are the same"
    raise InputError(
        f"its factory {config.factory} builds another network each time: {how}, and every process that uses this model "
        "builds its own. Register what is random as a parameter or buffer that the weights hold, or draw it from a "
        "fixed seed"
    )


def _are_alike(one_BK: Tensor, other_BK: Tensor) -> bool:
    if one_BK.shape != other_BK.shape:
        return False
    return bool((one_BK - other_BK).abs().max() <= _ROUNDING * (1 + one_BK.abs().max()))


def _logits(classifier: Classifier, images_BCHW: Tensor) -> Tensor:
    """The logits [B, K] under the same random states at every call: of dropout that is left on, its trial says it."""
    with predicting(classifier), torch.no_grad(), own_code("predicting"):
        _seed()
        return classifier(images_BCHW)  # type: ignore[no-any-return]


def _seed() -> None:
    random.seed(_OTHER_SEED)
    np.random.seed(_OTHER_SEED)
    torch.manual_seed(_OTHER_SEED)
