"""Alignment: models are trained and surrogates aligned, each as soon as the networks that it starts from are there.

Each network is made once. It lies in the store with a card that says what it is, and counts as finished once its card
exists.
"""

import time
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import chain, pairwise
from statistics import median

from safetensors.torch import load as load_safetensors

from align_core.alignment import NonFiniteLoss
from align_core.effect import Effect
from align_core.errors import InputError, reason_of
from align_core.model_config import model_config_as_dict
from align_core.models import load
from align_core.own_code import own_code
from align_core.published import as_built
from align_core.refinements.cost import passes_per_image
from align_core.trial import FoldingDifference, folding_difference, random_images
from align_core.weights import State, hash_weights
from pipelines.compute.checkpoint import Curve
from pipelines.compute.cluster import Worker, room_for
from pipelines.compute.fine_tune import FineTune
from pipelines.compute.here import weights_shown
from pipelines.compute.loading import on_device
from pipelines.compute.ray_train import RUNS, delete_run, fine_tune
from pipelines.compute.tuned import Stopped, Tuned
from pipelines.failure import ONCE_MENDED, InputChangedError, RunFailed
from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.first_look import look_at
from pipelines.stages.makings import Making, weights_file, write_failure
from pipelines.stages.payload import fine_tune_of, network_loader
from pipelines.stages.speeds import Speeds
from pipelines.storage.csv_table import to_csv
from pipelines.storage.differences import differences
from pipelines.storage.store import Store
from pipelines.storage.versions import versions


def make_networks(blueprint: Blueprint, worker: Worker, progress: Progress) -> int:
    """Trains and aligns every network that a run needs and that is missing; returns how many were made.

    One that diverges is left out. Raises RunFailed for any other failure, after all others are made, and at once where
    images or weights are not those that were inspected.
    """
    return _make_all(blueprint, blueprint.missing("align"), worker, progress)


def make_named(blueprint: Blueprint, names: Container[str], worker: Worker, progress: Progress) -> int:
    """Makes those of the named models and surrogates that have no weights yet; returns how many.

    Raises RunFailed where one cannot be made.
    """
    wanted = [making.name for making in blueprint.trainings() if making.name in names]
    wanted += [own.name for own in blueprint.planned if own.align is not None and own.name in names]
    missing = [name for name in wanted if not blueprint.is_made(name) and name not in blueprint.lost]
    made = _make_all(blueprint, missing, worker, progress)
    for name in wanted:
        if name in blueprint.lost:
            raise RunFailed(f"{name} cannot be made: {blueprint.lost[name]}")
    return made


def check_room(blueprint: Blueprint, worker: Worker, names: Container[str] | None = None) -> None:
    """Raises InputError where a fine-tune that is missing wants more workers than the cluster has room for.

    With `names`, only those of these surrogates are looked at.
    """
    room = room_for(worker)
    for surrogate in blueprint.surrogates:
        if surrogate.align is None or blueprint.is_made(surrogate.name):
            continue
        if names is not None and surrogate.name not in names:
            continue
        if surrogate.align.workers > room:
            raise InputError(
                f"align.workers: {surrogate.name} wants {surrogate.align.workers} at once, "
                f"and this cluster has room for {room}"
            )


@dataclass(frozen=True)
class _UnderWay:
    """A fine-tune that is running, and since when (seconds)."""

    making: Making
    job: FineTune
    began: float

    @property
    def steps(self) -> int:
        """How many it takes, unless it stops early."""
        return self.making.align.steps(len(self.job.image_ids))


def _make_all(blueprint: Blueprint, names: Sequence[str], worker: Worker, progress: Progress) -> int:
    """Makes the named networks, as many at once as there is room for, each when what it depends on is there."""
    if not names:
        return 0
    waiting, slots = list(names), max(1, room_for(worker, spare_cpus=1))  # a local cluster declares one CPU to spare
    running: dict[Future[Tuned], _UnderWay] = {}
    pool = ThreadPoolExecutor(len(names))
    steps_done, made, speeds = 0, 0, Speeds(blueprint)
    failures: list[str] = []
    try:
        at_once = min(slots, len(names))
        with progress.stage(_label(blueprint, names), _steps(blueprint, names), "steps", at_once) as bar:
            while True:
                for making in _ready(blueprint, waiting):
                    taken = sum(one.making.align.workers for one in running.values())
                    if running and taken + making.align.workers > slots:
                        break
                    _set_aside_stale(blueprint.store, making, progress)
                    job = fine_tune_of(blueprint, making, worker)
                    blueprint.store.delete(str(job.progress_file))  # an earlier run's would hide that workers start
                    future = pool.submit(fine_tune, job, making.run_name, worker)
                    running[future] = _UnderWay(making, job, time.time())
                    waiting.remove(making.name)
                if not running:
                    break  # what still waits needs a network that could not be made
                ended, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in ended:
                    finished = running.pop(future)
                    _say_notes(blueprint.store, finished.job, progress)
                    curve = _commit_result(blueprint, future, finished, progress, failures)
                    if curve is not None:
                        _note_speed(speeds, finished, curve, worker)
                        made += 1
                    done = finished.steps if curve is not None else _steps_reported(blueprint.store, finished)
                    steps_done += done
                    bar.leave_out(finished.steps - done)
                bar.set(steps_done + _steps_under_way(blueprint.store, running.values()))
    finally:
        # After Ctrl-C the others are not waited for: they end with the connection to the cluster.
        pool.shutdown(wait=False, cancel_futures=True)
    speeds.save()
    if failures:
        raise RunFailed(f"{'; '.join(failures)}. {ONCE_MENDED}")
    return made


def _ready(blueprint: Blueprint, waiting: Sequence[str]) -> list[Making]:
    """Those that wait and whose source and witnesses are there.

    First come the networks that a waiting surrogate starts from or is aligned to, then surrogates, then all others:
    otherwise the last alignment would run alone at the end, while the other processors idle.
    """
    makings = {making.name: making for making in chain(blueprint.trainings(), blueprint.alignments())}
    surrogates = [blueprint.by_name[name] for name in waiting if name in blueprint.by_name]
    first = {name for surrogate in surrogates for name in (surrogate.source, *surrogate.witnesses)}

    def urgency(name: str) -> int:
        return 0 if name in first else 1 if name in blueprint.by_name else 2

    return [makings[name] for name in sorted(waiting, key=urgency) if name in makings]


def _label(blueprint: Blueprint, names: Sequence[str]) -> str:
    trained = sum(name in blueprint.experiment.models for name in names)
    counts = [("train", trained, "model"), ("align", len(names) - trained, "surrogate")]
    return ", ".join(f"{verb} {count} {noun}{'s' * (count > 1)}" for verb, count, noun in counts if count)


def _steps(blueprint: Blueprint, names: Container[str]) -> int:
    """Steps of all these fine-tunes together."""
    images = len(blueprint.inspected.manifests["train"])
    trainings = [making.align for making in blueprint.trainings() if making.name in names]
    alignments = [own.align for own in blueprint.surrogates if own.align is not None and own.name in names]
    return sum(align.steps(images) for align in [*trainings, *alignments])


def _set_aside_stale(store: Store, making: Making, progress: Progress) -> None:
    """Moves an old network of the same name, which is damaged or was made with other settings, to `.stale`."""
    names = store.listing(making.folder).get(making.folder, [])
    if "card.json" in names:
        card = store.read_json(f"{making.folder}/card.json") or {}
        differ = differences(card.get("inputs"), making.inputs, making.names)
        why = f"made with other settings ({differ})" if differ else "its files are damaged"
        folder = store.set_aside(making.folder, names)
        progress.say(f"{making.folder}: {why}; moved to {folder}")


def _commit_result(
    blueprint: Blueprint,
    future: Future[Tuned],
    finished: _UnderWay,
    progress: Progress,
    failures: list[str],
) -> Curve | None:
    """Takes up a fine-tune that has ended; returns its curve, or None where it made no network.

    One that diverged is noted in the store, since it would diverge again. Any other failure is added to `failures`, but
    for images or weights that are not those that were inspected, for which it raises RunFailed.
    """
    making = finished.making
    what = "alignment" if making.start else "training"
    try:
        tuned = future.result()
    except NonFiniteLoss as problem:
        reason, far = _in_its_keys(making, reason_of(problem)), _how_far(blueprint.store, finished)
        write_failure(blueprint.store, making, f"its {what} failed: {reason}")
        progress.say(f"the {what} of {making.name} failed {far}: {reason}; all others go on")
        blueprint.refresh()
        return None
    except InputChangedError as problem:  # everything else would have a wrong fingerprint, too, so that it ends here
        raise RunFailed(f"the {what} of {making.name} failed: {problem}. What was finished is kept") from problem
    except Exception as problem:  # of the user's code, of torch, or of Ray
        far = _how_far(blueprint.store, finished)
        failures.append(f"the {what} of {making.name} failed {far}: {reason_of(problem)}")
        return None
    seconds, shape = time.time() - finished.began, blueprint.inspected.shape
    if note := commit(blueprint.store, making, tuned.weights, tuned.curve, seconds, shape, tuned.effect, tuned.stopped):
        progress.say(note)
    if tuned.stopped is not None:
        progress.say(f"{making.name}: {tuned.stopped.line()}")
    if tuned.effect is not None:
        progress.say(f"{making.name}: {tuned.effect.warning() or tuned.effect.line()}")
    delete_run(blueprint.store, making.run_name)
    blueprint.damaged.discard(making.name)
    blueprint.refresh()
    if making.start is None:
        _look_at(blueprint, making.name, progress)
    return tuned.curve


def _look_at(blueprint: Blueprint, name: str, progress: Progress) -> None:
    """Says where a model that was just trained does no better than chance, before hours are spent on it."""
    classifier = network_loader(blueprint).load(name, "cpu")
    with suppress(InputError):  # what it cannot predict, the evaluation says, with the images
        look = look_at(classifier, blueprint.experiment.data, blueprint.inspected.manifests["test"])
        if warning := look.warning(name, trained_here=True):
            progress.say(warning)


def _note_speed(speeds: Speeds, finished: _UnderWay, curve: Curve, worker: Worker) -> None:
    """Notes how long a pass took for each image: the median, for a fine-tune that was interrupted has a long one."""
    making, times = finished.making, [row["timestamp"] for row in curve]
    if len(times) > 1:
        seconds = median(later - earlier for earlier, later in pairwise(times)) * making.align.workers
        batch = min(making.align.batch_size, len(finished.job.image_ids))
        count = batch * passes_per_image(making.align, len(making.witnesses)).total
        speeds.note("training", (making.start or making.name, *making.witnesses), worker.device, count, seconds)


def commit(
    store: Store,
    making: Making,
    weights: Sequence[bytes],
    curve: Curve,
    seconds: float,
    shape: tuple[int, int, int],
    effect: Effect | None = None,
    stopped: Stopped | None = None,
) -> str | None:
    """Puts a network into the store: weights, curve, and last the card, which says that it is complete.

    Args:
        weights: of each network, the content of a .safetensors file.
        seconds: that it took to make, for the card.
        shape: channels, height and width of the images.
        effect: what it did to the likeness to the witnesses, for the card.
        stopped: what came of its early stop, for the card.

    The card holds everything that decides predictions and is not in the weights: the constructor's arguments and the
    preprocessing, as the library set them when the network was made. It also has by how much the network's logits
    differ where its BatchNorms are folded. Returns what has to be said of that, if anything.
    """
    states, classes = [load_safetensors(own) for own in weights], making.inputs["classes"]
    found = [_folding_difference(making, state, shape) for state in states]
    folding = max(found, key=lambda own: own.largest)
    for number, own in enumerate(weights):
        store.write(f"{making.folder}/{weights_file(number)}", own)
    curves = to_csv(curve, list(curve[0]))
    store.write(f"{making.folder}/curves.csv", curves)
    card = {
        "name": making.name,
        "fingerprint": making.fingerprint,
        "inputs": making.inputs,
        "weights": hash_weights(states[0]),
        "file": sha256(weights[0]).hexdigest(),
        "curves": sha256(curves).hexdigest(),
        "model": model_config_as_dict(weights_shown(as_built(making.model, classes, shape[0]))),
        "start": making.start,
        "witnesses": list(making.witnesses),
        "settings": asdict(making.align),
        "folded": [batchnorm for _, batchnorm in making.folded],
        "folding_difference": folding.largest,
        "versions": versions(),
        "seconds": round(seconds, 3),
        **({"ancestors": list(making.ancestors)} if making.ancestors else {}),
        **({"effect": effect.as_dict()} if effect is not None else {}),
        **({"early_stop": stopped.as_dict()} if stopped is not None else {}),
    }
    if len(weights) > 1:
        card |= {
            "more_weights": [hash_weights(state) for state in states[1:]],
            "more_files": [sha256(own).hexdigest() for own in weights[1:]],
        }
    store.write_json(f"{making.folder}/card.json", card)
    store.delete(making.failed_file)
    store.delete(f"{RUNS}/{making.run_name}-progress.json")
    if all(own.is_rounding for own in found):
        return None
    return (
        f"{making.name}: with its BatchNorms folded, as those of what it was made from are, its logits differ by "
        f"{folding.largest:.2g}, which is more than rounding; this is how it predicts and is crafted on"
    )


def _folding_difference(making: Making, state: State, shape: tuple[int, int, int]) -> FoldingDifference:
    """Measures a network that was made as the inspection measures models that are there: on the same images."""
    if not making.folded:
        return FoldingDifference(0.0, True)
    classifier = load(making.model, making.inputs["classes"], shape[0], state)
    classifier.precision = making.inputs["precision"]
    network = on_device(classifier, "cpu", making.channels_last)
    with own_code(f"{making.name}: predicting with BatchNorms folded"):
        return folding_difference(network, making.folded, random_images(shape))


def _say_notes(store: Store, job: FineTune, progress: Progress) -> None:
    """Says what the worker left to be said, such as that a checkpoint was damaged."""
    for line in (store.read_json(str(job.progress_file)) or {}).get("said", ()):
        progress.say(line)


def _steps_under_way(store: Store, running: Iterable[_UnderWay]) -> int:
    """Steps that the running fine-tunes report as done."""
    return sum(_steps_reported(store, one) for one in running)


def _steps_reported(store: Store, one: _UnderWay) -> int:
    """Steps that a fine-tune reports as done, which it does about once a second."""
    done = (store.read_json(str(one.job.progress_file)) or {}).get("done")
    return done if isinstance(done, int) else 0


def _in_its_keys(making: Making, reason: str) -> str:
    """Why a fine-tune diverged, with the keys of a model that is trained here where it is no alignment."""
    if making.start is not None:
        return reason
    own = f"models.{making.name}.train.lr"
    return reason.replace("align.optimizer.lr, or set align.clip_grad_norm", own).replace("align.optimizer.lr", own)


def _how_far(store: Store, failed: _UnderWay) -> str:
    """How far a fine-tune came that has failed, as far as it has said so."""
    return f"(it had reported {_steps_reported(store, failed):,} of {failed.steps:,} steps)"
