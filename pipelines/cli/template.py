"""The text of the file that `witness init` writes: an experiment with a short explanation of every section."""

import json
import math
import re
import shlex
from pathlib import Path

from align_core.errors import InputError
from pipelines.cli.catalogue import CONTROLS
from pipelines.cli.starter import SMALL_SIDE, Images, Model, Starter, path_in

_TEXT = """\
# A starter experiment. Change it as you like: after a change, a run computes only what the change affects.
#
#     witness plan {file}      what a run will do and leave; once one has begun, also how long it takes
#     witness run {file}       align, craft, evaluate and report
#
# Paths are relative to this file; `output` is relative to the folder in which `witness` runs.
name: {name}
seed: 0
output: runs    # the results are in <output>/<name>; an object store (s3://..., gs://...) needs `tracking` as well

data:
  classes: {classes}
  image_size: {image_size}    # the short side is resized to this many pixels, and the centre is cropped
  # Training images align the source, and train the models that have no weights. Test images are attacked. No image may
  # be in both. {kinds}
  train: {train}
  test:  {test}
  # `witness tune` chooses the settings of `align` on other images and other targets (`validation_targets`) than these:
  # validation: {{kind: ..., path: ...}}

# Each model names an architecture of timm; `torchvision:` and `factory:` (your own code) are possible, too. A model
# with `train` instead of `weights` is trained on the training images, once. The tables compare targets of the source's
# family with others; a model's family is its name, unless `family:` says otherwise.
models:
{models}

# The source is aligned to the witnesses: it is fine-tuned so that its predictions match theirs. Adversarial examples
# are crafted on it and evaluated on the targets, which the attacker cannot see.
source: {source}
witnesses: [{witnesses}]
targets: [{targets}]

# A gain means little by itself. These surrogates show what else could explain it, or gain more:
{controls_explained}
controls: [{controls}]

# The temperature of the softmax decides more than any other setting whether alignment helps. These are the settings of
# the CIFAR-10 recipe that ships with Witness; `witness list experiments` says where it is.
align:
  loss: kl
  temperature: 16.0
  epochs: {align_epochs}    # passes over the training images; with this batch size, about {align_updates} updates
  batch_size: 128
  optimizer: {{name: sgd, lr: 0.05}}    # lower it if surrogates.csv shows a loss of clean accuracy
  clip_grad_norm: 1.0
  augment: {{crop: {crop}, flip: true}}    # flip: false where left and right differ in meaning, as in digits or text

# {eps_explained}
# Where nearly all adversarial examples transfer, or nearly none, no difference can be seen: then choose another eps.
# `witness list attacks` lists the methods.
attacks:
  pgd: {{method: pgd, eps: {eps}/255, step: {pgd_step}/255, steps: 10}}
  mi:  {{method: mi,  eps: {eps}/255, step: {mi_step}/255, steps: 10}}    # step = eps / steps, as in Dong et al. (2018)

compute:
  workers: 2           # processes that hold models, with a GPU each where there are GPUs
  accelerator: auto    # auto, cpu or cuda
  chunk: {chunk}           # images that are crafted together: the unit of work, of retry and of resume
"""

_KINDS = {
    "folder": (
        "A folder has a sub-folder per class, or `labels` lists the label of each image.\n"
        "  # `sample: 500` in the braces draws 500 images, of every class in proportion;\n"
        "  # `limit: 500` takes the first 500, which are those of the first classes."
    ),
    "parquet": (
        "Parquet files have the columns `image` and `label`, or others\n"
        "  # that `image_column` and `label_column` name."
    ),
    "npz": "An npz file has the arrays `images` (uint8, NHWC) and `labels`.",
}


def text_of(starter: Starter) -> str:
    """The whole file. Raises InputError for a path that cannot be written in it."""
    is_small = starter.image_size <= SMALL_SIDE
    eps = 8 if is_small else 16
    epochs, updates = _alignment(starter.train.count)
    return _TEXT.format(
        file=shlex.quote(starter.file.name),
        name=scalar(starter.name),
        classes=starter.classes,
        image_size=starter.image_size,
        kinds="\n  # ".join(_KINDS[kind] for kind in dict.fromkeys((starter.train.kind, starter.test.kind))),
        train=_image_set(starter, starter.train),
        test=_image_set(starter, starter.test),
        models="\n".join(_model(starter, model) for model in starter.models),
        source=scalar(starter.source.key),
        witnesses=", ".join(scalar(model.key) for model in starter.witnesses),
        targets=", ".join(scalar(model.key) for model in starter.targets),
        controls=", ".join(CONTROLS),
        controls_explained="\n".join(f"# * {name}: {what}" for name, what in CONTROLS.items()),
        align_epochs=epochs,
        align_updates=updates,
        crop="pad4" if is_small else "random_resized",
        eps=eps,
        pgd_step=eps // 4,
        mi_step=f"{eps / 10:g}",
        eps_explained=(
            "eps is the largest change of a pixel. 8/255 is usual for small images (Madry et al. 2018; RobustBench)."
            if is_small
            else "eps is the largest change of a pixel. 16/255 is usual in work on transfer (Dong et al. 2018)."
        ),
        chunk=100 if is_small else 25,
    )


def scalar(value: str) -> str:
    """A string as YAML that is read as the same string: bare where that is possible, else in quotes."""
    from pipelines.experiment.yaml_file import parse_yaml

    if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*", value) and parse_yaml(value, "") == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _image_set(starter: Starter, images: Images) -> str:
    labels = f", labels: {scalar(path_in(starter.file, images.label_file))}" if images.label_file else ""
    return f"{{kind: {images.kind}, path: {scalar(path_in(starter.file, images.path))}{labels}}}"


def _model(starter: Starter, model: Model) -> str:
    if model.weights is None:
        weights = f"train: {{epochs: {_training_epochs(starter.train.count)}, batch_size: 32, lr: 2e-3}}"
    elif model.weights == "pretrained":
        weights = "weights: pretrained"
    else:
        weights = f"weights: {scalar(path_in(starter.file, Path(model.weights)))}"
    return f"  {scalar(model.key)}: {{timm: {scalar(model.timm)}, {weights}}}{_resizing(starter, model)}"


def _resizing(starter: Starter, model: Model) -> str:
    """A comment on weights from a file where timm resizes the images: nothing shows at what size they were trained."""
    if model.weights in (None, "pretrained") or ":" in model.timm:
        return ""
    from align_core.model_config import ModelConfig
    from align_core.published import as_built

    try:
        own = as_built(ModelConfig(timm=model.timm, weights=model.weights), starter.classes, 3)
    except InputError:  # there is no such model, as `_check_models` says better
        return ""
    if own.input_size in (None, starter.image_size) or "img_size" in own.args:  # which is built for one size
        return ""
    side = starter.image_size
    return (
        f"\n    # images are resized to {own.input_size}; for weights that were trained at {side} px, add "
        f"input_size: {side}"
    )


def _training_epochs(images: int) -> int:
    """Passes over the images that make about 500 updates in batches of 32, but no fewer than 10 and no more than 100.

    The networks of the demo learn its digits in this many.
    """
    return min(100, max(10, math.ceil(500 * 32 / images)))


def _alignment(images: int) -> tuple[int, int]:
    """Passes over the images (at most 50), and updates in batches of 128: about 140, as in the CIFAR-10 recipe."""
    updates = max(1, images // 128)
    epochs = min(50, math.ceil(140 / updates))
    return epochs, epochs * updates
