"""Which fingerprints each key of the experiment file changes: measured on the tiny experiment, and written as a table.

Each row sets one key to another value; the settings before it are the same on both sides. A network that is made here
counts as another one as soon as its fingerprint differs, so that what follows from it is seen without training.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from experiment_keys import KEYS

from pipelines.report.page import report_fingerprint
from pipelines.stages.blueprint import Blueprint

FILE = Path(__file__).parents[2] / "pipelines" / "FINGERPRINTS.md"
Fingerprints = dict[str, dict[str, str]]
"""Column -> name of a result -> its fingerprint."""
COLUMNS = ("image sets", "trained", "aligned", "adversarial", "clean", "corrupted", "outcomes", "reasons", "report")
HEAD = """# Which key changes which results

A result is made again when its fingerprint differs. For every key of the experiment file, this table says which
fingerprints change when the key gets another value:

* *all*: every fingerprint of that kind;
* *some*: those of the role, model, variant or attack that the key belongs to;
* an empty cell: none.

The kinds are those of image sets, of models that are trained here, of aligned networks, of adversarial images, of
predictions on clean and on corrupted images, of outcomes (predictions on adversarial images), of reasons, which are
measured here though they are not by default, and of the report's tables. In a row `models.*`, the model is the source
unless the row says otherwise. Files count by what they hold, not by their paths.
Adding or leaving out a target or a control changes no fingerprint but that of the report.

The table is measured by `tests/pipelines/experiment/test_fingerprint_table.py`, which fails when the table is out of
date; `WITNESS_WRITE_TABLE=1 pytest tests/pipelines/experiment/test_fingerprint_table.py` writes it anew.

"""

_TRAINED = "models.n={factory: 'nets_of_any_size:net', train: {}};source=n;targets=[c]"
_TIMM = (
    "models={m: {timm: test_resnet, train: {}}, n: {timm: test_resnet, train: {}}, o: {timm: test_resnet, train: {}}}"
)
_PHOTOS = "data.{role}={{kind: folder, path: photos/cat, labels: photos.csv}}"
_NPZ = {
    "train": "data.train={kind: npz, path: images.npz, take: [0, 8]}",
    "validation": "data.validation={kind: npz, path: others.npz}",
    "test": "data.test={kind: npz, path: images.npz, take: [8, 16]}",
}


def _rows() -> Iterator[tuple[str, str, str]]:
    """(key, perhaps with a role after a space; settings on both sides; settings of the changed side alone)."""
    yield "name", "", "name=other"
    yield "warning", "", "warning=beware"
    yield "seed", "", "seed=5"
    yield "seeds", "seeds=[0, 5]", "seeds=[0, 6]"
    yield "output", "", "output=there"
    yield "tracking", "", "tracking=http://host:1"
    yield "register", "", "register=mine"
    yield "mlflow_models", "", "mlflow_models=none"
    yield "factories", "", "factories=code"
    yield "data.classes", f"{_TIMM};source=m;witnesses=[n];targets=[o];variants={{}}", "data.classes=4"
    yield "data.image_size", "", "data.image_size=6"
    yield "data.resize", "", "data.resize=9"
    yield "data.interpolation", "data.resize=9", "data.interpolation=bilinear"
    yield "data.channels", f"{_TIMM};source=m;witnesses=[n];targets=[o];variants={{}}", "data.channels=1"
    yield "data.on_bad_image", "", "data.on_bad_image=skip"
    yield "data.on_duplicate", "", "data.on_duplicate=skip"
    for role, npz in _NPZ.items():
        yield f"data.{role}.kind", f"{npz};data.classes=names.txt", f"data.{role}={{kind: folder, path: more}}"
        yield f"data.{role}.path", npz, f"data.{role}.path=more.npz;data.{role}.take=null"
        yield f"data.{role}.take", npz, f"data.{role}.take={[9, 12] if role == 'test' else [0, 2]}"
        yield f"data.{role}.limit", npz, f"data.{role}.limit=2"
        yield f"data.{role}.sample", npz, f"data.{role}.sample=2"
        yield f"data.{role}.sample_seed", f"{npz};data.{role}.sample=2", f"data.{role}.sample_seed=3"
        folder = f"data.{role}={{kind: folder, path: more, labels: more.csv}}"
        yield f"data.{role}.labels", folder, f"data.{role}.labels=more_again.csv"
        photos = f"data.{role}={{kind: folder, path: photos, labels: columns.csv}}"
        yield f"data.{role}.image_column", photos, f"data.{role}.image_column=file"
        yield f"data.{role}.label_column", photos, f"data.{role}.label_column=class"
        yield f"data.{role}.first_class", f"{photos};data.{role}.label_column=class", f"data.{role}.first_class=1"
        named = f"data.classes=classes.txt;{photos};data.{role}.label_names=numbers.csv"
        yield f"data.{role}.label_names", named, f"data.{role}.label_names=numbers_again.csv"
        parquet = f"data.{role}={{kind: parquet, path: few.parquet}}"
        yield f"data.{role}.id_column", parquet, f"data.{role}.id_column=row"
        if role != "test":  # where it is refused
            yield f"data.{role}.inspect", npz, f"data.{role}.inspect=bytes"
    for kind, one, other in (
        ("timm", "test_resnet", "test_vit"),
        ("torchvision", "squeezenet1_1", "squeezenet1_0"),
        ("factory", "'nets_of_any_size:net'", "'nets_of_any_size:flat'"),
    ):
        yield (
            f"models.*.{kind}",
            f"models.n={{{kind}: {one}, train: {{}}}};source=n;targets=[c]",
            f"models.n.{kind}={other}",
        )
    yield "models.*.aligned", "models.n={aligned: aligned};source=n", "models.n={aligned: aligned_again}"
    yield "models.*.mlflow", "models.n={mlflow: models:/n/1};source=n", "models.n={mlflow: models:/n/2}"
    wrapped = "models.n={wrap: jpeg, model: c};targets=[n]"
    yield "models.*.wrap", wrapped, "models.n={wrap: bits, model: c}"
    yield "models.*.model", wrapped, "models.n.model=d"
    yield "models.*.args of a defence", wrapped, "models.n.quality=60"
    yield "models.*.args", _TRAINED, "models.n.args={width: 7}"
    yield "models.*.weights", "", "models.a.weights=d.safetensors"
    begun = _TRAINED.replace("train: {}", "train: {}, weights: a.safetensors")
    yield "models.*.weights of a model that is trained here", begun, "models.n.weights=d.safetensors"
    for key, value in (
        ("epochs", 7), ("lr", 7), ("batch_size", 7), ("weight_decay", 7), ("crop", "pad4"), ("flip", "true"),
        ("warmup", 0.5),
    ):  # fmt: skip
        yield f"models.*.train.{key}", _TRAINED, f"models.n.train.{key}={value}"
    for key, value in (("layer_decay", "0.5"), ("freeze", "['0.bias']"), ("batchnorm", "frozen")):
        yield f"models.*.train.{key}", begun, f"models.n.train.{key}={value}"
    normal = "models.a.mean=[0.5, 0.5, 0.5];models.a.std=[0.5, 0.5, 0.5]"
    yield "models.*.mean", normal, "models.a.mean=[0.5, 0.5, 0.6]"
    yield "models.*.std", normal, "models.a.std=[0.5, 0.5, 0.6]"
    yield "models.*.input_size", "", "models.a.input_size=5"
    for key, value in (("mean", "[0.5, 0.5, 0.5]"), ("std", "[0.5, 0.5, 0.5]"), ("input_size", "5")):
        for name, of, base in (("n", "of a model that is trained here", f"{_TRAINED};"), ("c", "of a target", "")):
            before = f"{base}models.{name}.mean=[0, 0, 0];models.{name}.std=[1, 1, 1]" if key != "input_size" else base
            yield f"models.*.{key} {of}", before.strip(";"), f"models.{name}.{key}={value}"
    yield "models.*.weights of a target", "", "models.c.weights=d.safetensors"
    # Given as it is by default, so that the weights still fit: the architecture counts as it is written.
    yield "models.*.args of a target", "", "models.c.args={width: 4}"
    yield "models.*.family", "", "models.a.family=other"
    yield "source", "targets=[c]", "source=d"
    yield "witnesses", "targets=[c]", "witnesses=[d]"
    yield "targets", "", "targets=[c]"
    yield "matrix", "source=null;targets=null;variants={};matrix=[a, c]", "matrix=[a, c, d]"
    yield "validation_targets", "", "validation_targets=[d]"
    yield "groups.*", "", "groups={both: [c, e]}"
    yield "controls", "", "controls=[label_only]"
    for key, value in (
        ("loss", "mse"), ("temperature", 7), ("weight", 7), ("label_weight", 7), ("epochs", 7), ("batch_size", 6),
        ("accumulate", 2), ("workers", 2), ("clip_grad_norm", 7), ("batchnorm", "frozen"), ("checkpoint_steps", 7),
        ("optimizer.name", "adamw"), ("optimizer.lr", 7), ("optimizer.momentum", 0.7), ("optimizer.nesterov", "false"),
        ("optimizer.weight_decay", 7), ("optimizer.schedule", "constant"), ("optimizer.warmup", 0.5),
        ("optimizer.layer_decay", 0.5), ("teacher", "source"), ("inputs", "random"), ("mix", "mixup"),
        ("terms", "[input_gradient]"), ("update", "sam"), ("keep", "ema"), ("limit_steps", 1),
        ("freeze", "['*.weight']"), ("augment.crop", "random_resized"), ("augment.flip", "false"),
    ):  # fmt: skip
        yield f"align.{key}", "", f"align.{key}={value}"
    stopping = f"{_NPZ['validation']};validation_targets=[d]"
    for key, before, value in (
        ("by", "attack: x, by: gain", "{by: agreement}"),
        ("every", "by: agreement", "{every: 2}"),
        ("patience", "by: agreement", "{patience: 5}"),
        ("attack", "attack: x, by: gain", "{by: gain, attack: y}"),
    ):
        base = f"{stopping};attacks.y={{method: fgsm, eps: 8/255}};align.early_stop={{{before}}}"
        yield f"align.early_stop.{key}", base, f"align.early_stop={value}"
    yield "align.label_smoothing", "align.label_weight=1", "align.label_smoothing=0.1"
    yield "align.over_witnesses", "witnesses=[b, d];targets=[c]", "align.over_witnesses=max"
    yield "contrasts", "", "contrasts=[[v, source]]"
    yield "variants.*.refine", "", "variants.v.refine=label_only"
    yield "variants.*.budget", "variants.v.align={update: sam};align.epochs=5", "variants.v.budget=aligned"
    yield "variants.*.ensemble", "variants.w={ensemble: [a, b]}", "variants.w.ensemble=[a, v]"
    yield "variants.*.combine", "variants.w={ensemble: [a, b]}", "variants.w.combine=cycle"
    yield "variants.*.source", "", "variants.v.source=d"
    yield "variants.*.witnesses", "", "variants.v.witnesses=[d]"
    yield "variants.*.align", "", "variants.v.align={weight: 7}"
    yield "variants.*.model", "", "variants.v.model=d"
    for key, value in (
        ("method", "fgsm"), ("eps", "7/255"), ("step", "7/255"), ("steps", 7), ("objective", "margin"),
        ("random_start", "true"), ("momentum", 7), ("nesterov", "false"), ("kernel", 7), ("norm", "l2"),
        ("towards", "next"), ("normalized", "false"), ("warm_start", 7), ("step_decay", 0.7),
        ("samples", "none"), ("views", "[scale]"), ("budget", 50),
    ):  # fmt: skip
        yield f"attacks.*.{key}", "", f"attacks.x.{key}={value}"
    yield "attacks.*.warm_stride", "attacks.x.warm_start=1", "attacks.x.warm_stride=7"
    yield "attacks.*.step_decay_by", "attacks.x.step_decay=0.5", "attacks.x.step_decay_by=gradient"
    made = "attacks.t={images: made.npy, eps: 8/255}"
    yield "attacks.*.images", made, "attacks.t.images=made_again.npy"
    yield "attacks.*.compare_with", made, "attacks.t.compare_with=x"
    matrix = "source=null;targets=null;variants={};matrix=[a, c]"
    yield "attacks.*.source", f"{matrix};{made[:-1]}, source: a}}", "attacks.t.source=c"
    yield "corruptions", "corruptions={jpeg: [1]}", "corruptions={jpeg: [2]}"
    yield "seed of corruptions that draw", "corruptions={shot_noise: [1]}", "seed=7"
    yield "reasons.sample", "", "reasons.sample=3"
    yield "reasons.attack", "attacks.y={method: fgsm, eps: 8/255}", "reasons.attack=y"
    foreign = "attacks.x={method: 'torchattack:MIFGSM', eps: 8/255}"
    yield "attacks.*.args", foreign, "attacks.x.args={decay: 7}"
    yield "attacks.*.combine", "attacks.x.views=[scale]", "attacks.x.combine=logits"
    for key, value in (
        ("workers", 3), ("threads", 3), ("accelerator", "cpu"), ("precision", "bf16"), ("chunk", 3), ("pass", 3),
        ("networks", 3), ("cache", "/tmp/kept"), ("patience", 7), ("resources", "{a: 1}"),
        ("craft.workers", 3), ("craft.gpus", 0.5), ("craft.resources", "{a: 1}"), ("evaluate.workers", 3),
        ("evaluate.gpus", 0.5), ("evaluate.resources", "{a: 1}"),
    ):  # fmt: skip
        yield f"compute.{key}", "", f"compute.{key}={value}"


ROWS = {key: (base, change) for key, base, change in _rows()}


def expected_keys() -> set[str]:
    """Every key that the table must have: those of the experiment file, with the image sets apart.

    The test images have no key `inspect` but for its default.
    """
    found = set()
    for key in KEYS:
        found |= {key.replace("data.*", f"data.{role}") for role in _NPZ} if key.startswith("data.*") else {key}
    return found - {"data.test.inspect"}


def changed_by(row: str, fingerprints_with: Callable[[str], Fingerprints]) -> dict[str, str]:
    """Column -> whether "all" or "some" of what both sides have there has another fingerprint. Others are left out."""
    base, change = ROWS[row]
    one, other = (
        fingerprints_with(";".join(filter(None, ["reasons={}", *settings]))) for settings in ([base], [base, change])
    )
    found = {}
    for column in COLUMNS:
        both = one[column].keys() & other[column].keys()
        count = sum(one[column][name] != other[column][name] for name in both)
        if count:
            found[column] = "all" if count == len(both) else "some"
    return found


def fingerprints(blueprint: Blueprint) -> Fingerprints:
    """Those of an experiment, as if every network had been made."""
    trained, aligned = {}, {}
    for making in chain(blueprint.trainings(), blueprint.alignments()):  # lazily: alignments start from trained models
        network = blueprint.networks[making.name]
        blueprint.networks[making.name] = replace(network, config=making.model, digest=making.fingerprint)
        (aligned if making.start else trained)[making.name] = making.fingerprint
    adversarial = {"/".join(key): table.fingerprint for key, table in blueprint.all_adversarial().items()}
    return {
        "image sets": {role: manifest.digest for role, manifest in blueprint.inspected.manifests.items()},
        "trained": trained,
        "aligned": aligned,
        "adversarial": adversarial,
        "clean": {
            surrogate.name: blueprint.clean()[blueprint.clean_name(surrogate)].table.fingerprint
            for surrogate in blueprint.surrogates
        }
        | {name: own.table.fingerprint for name, own in blueprint.clean().items()},
        "outcomes": {
            f"{cell.surrogate}/{cell.attack}/{cell.target}": cell.table.fingerprint for cell in blueprint.cells()
        },
        "corrupted": {own.table.folder.split("/")[-1]: own.table.fingerprint for own in blueprint.corrupted().values()},
        "reasons": {"/".join(pair): table.fingerprint for pair, table in blueprint.reasons().items()},
        "report": {"": report_fingerprint(blueprint)},
    }


def as_markdown(changed: dict[str, dict[str, str]]) -> str:
    """The table, a line per row, in the order of `ROWS`."""
    lines = [f"| key | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for row in ROWS:
        key, _, of = row.partition(" ")
        cells = [changed[row].get(column, "") for column in COLUMNS]
        lines.append(f"| {f'`{key}` {of}'.strip()} | {' | '.join(cells)} |")
    return HEAD + "\n".join(lines) + "\n"


def read_table() -> dict[str, dict[str, str]]:
    """Row -> column -> "all" or "some", as the file says; a column that is blank there is left out."""
    found = {}
    for line in FILE.read_text().splitlines():
        if line.startswith("| `"):
            row, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            found[row.replace("`", "")] = {column: cell for column, cell in zip(COLUMNS, cells, strict=True) if cell}
    return found
