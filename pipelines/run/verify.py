"""Checks a finished experiment: hashes, counts, value ranges, eps-balls, and a sample of predictions.

The check trusts nothing that was recorded when the tables were made: it decodes the images, reads the weights and
computes the distances anew, all in this process.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from align_core.attacks import distances
from align_core.errors import InputError, reason_of
from align_core.images import ImageSetConfig
from align_core.images.inspection import Inspection, inspect_images
from align_core.weights import hash_weights
from pipelines.compute.images import adversarial_images
from pipelines.compute.loading import LoadedNetworks, use_threads
from pipelines.progress import Bar, Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.inspect_images import look_at_all
from pipelines.stages.payload import network_loader, test_images
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import fingerprint_of

# Logits that differ by less than this may come out in the other order on other hardware.
_TIE = 1e-3
# Distances are stored in single precision.
_ROUNDING = 1e-6


@dataclass
class Verification:
    """The result of a check.

    Attributes:
        findings: what was found wrong, a sentence each that begins with the folder, network or image set.
        checked: how many images, networks, tables, rows and repeated predictions were checked.
    """

    findings: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The lines that `witness verify` prints."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.checked.items())
        problems = len(self.findings)
        total = f"{problems} problem{'s' if problems > 1 else ''} found" if problems else "no problem found"
        return [*(f"problem: {finding}" for finding in self.findings), f"checked: {counts}; {total}"]

    def as_json(self) -> dict[str, Any]:
        """The object that `witness verify --json` prints."""
        return {"findings": self.findings, "checked": dict(self.checked)}


def verify_experiment(request: Request, sample: int = 20, seed: int = 0) -> Verification:
    """Checks a finished experiment.

    Args:
        request: the experiment.
        sample: number of images of each set, clean or adversarial, for which every prediction is repeated.
        seed: of the draw of these images.

    Raises InputError if the experiment is not valid or `sample` is negative, and RunFailed if it is not finished.
    """
    if sample < 0:
        raise InputError(f"--sample {sample}: must be 0 or more")
    blueprint, progress = open_blueprint(request), Progress(request.quiet)
    blueprint.check_finished()
    use_threads(blueprint.experiment.compute.threads)
    return Verifier(blueprint, sample, np.random.default_rng(seed)).run(progress)


class Verifier:
    """Checks one finished experiment; `run` does all of it.

    Args:
        blueprint: the experiment.
        sample: number of images of each set for which predictions are repeated.
        rng: draws these images.
    """

    def __init__(self, blueprint: Blueprint, sample: int, rng: np.random.Generator) -> None:
        self.blueprint, self.store, self.sample, self.rng = blueprint, blueprint.store, sample, rng
        self.found = Verification()
        self.unreadable: set[str] = set()  # networks whose predictions cannot be repeated
        self.images = test_images(blueprint)
        self.networks = LoadedNetworks(network_loader(blueprint), "cpu", blueprint.experiment.compute.networks)

    def run(self, progress: Progress) -> Verification:
        """Checks image sets and networks, then the tables over clean images, then those over adversarial images."""
        blueprint = self.blueprint
        self._check_image_sets(progress)
        self._check_weights()
        clean, outcomes = list(blueprint.clean().values()), blueprint.outcomes()
        tables = len(clean) + sum(1 + len(predictions) for predictions in outcomes.values())
        with progress.stage("verify", sum(blueprint.rows) * tables, "rows") as bar:
            self._check_predictions(None, clean, bar)
            for (surrogate, attack), images in blueprint.all_adversarial().items():
                self._check_adversarial(images, blueprint.experiment.attacks[attack].eps, bar)
                self._check_predictions(images, outcomes[surrogate, attack], bar)
        return self.found

    def _report(self, finding: str) -> None:
        self.found.findings.append(finding)

    def _report_rows(self, table: ChunkedTable, chunk: int, are_wrong_B: npt.NDArray[np.bool_], what: str) -> None:
        if are_wrong_B.any():
            ids = np.array(self.images.ids_of(chunk))[are_wrong_B]
            self._report(f"{table.folder}: {len(ids)} images of chunk {chunk} {what}: {', '.join(ids[:3])}")

    def _check_image_sets(self, progress: Progress) -> None:
        """Decodes every image set anew and compares its hash with that of the manifest in the store."""
        experiment, known = self.blueprint.experiment, self.blueprint.inspected.manifests
        data = experiment.data

        def look(role: str, config: ImageSetConfig) -> Inspection:
            with progress.stage(f"check data.{role}", len(known[role]), "images") as bar:
                advance: Callable[[int], None] = bar.set
                return inspect_images(config, data.image_size, data.channels, advance)

        try:
            found = look_at_all(experiment, look)
        except InputError as problem:
            self._report(f"the image sets cannot be used any more: {problem}")
            return
        for role, now in found.items():
            self.found.checked["images"] += len(now)
            if now.digest != known[role].digest:
                self._report(f"data.{role}: the images are not those that the results were made from")

    def _check_weights(self) -> None:
        """Compares the hash of each network's weights with the hash that the results were made with."""
        for name, network in self.blueprint.networks.items():
            if network.digest is None:  # a network that this experiment does not need, and never made
                continue
            self.found.checked["networks"] += 1
            try:
                if network.stored:
                    digest = hash_weights(load_safetensors(self.store.read(network.stored)))
                else:
                    digest = hash_weights(self.networks.network(name).net.state_dict())
            except (InputError, OSError, SafetensorError) as problem:
                self._report(f"{name}: its weights cannot be read ({reason_of(problem)})")
                self.unreadable.add(name)
                continue
            if digest != network.digest:
                self._report(f"{name}: its weights are not those that the results were made with")

    def _check_adversarial(self, table: ChunkedTable, eps: float, bar: Bar) -> None:
        """Checks that images are 8-bit, lie in the eps-ball around the clean ones, and at the distances recorded.

        `eps` is a fraction of the pixel range.
        """
        most = int(eps * 255 + _ROUNDING)
        for chunk, content in self._readable_chunks(table):
            clean = self.images.read(chunk)
            adversarial = adversarial_images(content)
            if adversarial.shape != clean.shape or adversarial.dtype != np.uint8:
                found = f"{adversarial.dtype} images of {adversarial.shape[1:]}"
                self._report(f"{table.folder}: chunk {chunk} holds {found}, not uint8 images of {clean.shape[1:]}")
                continue
            linf_B = np.abs(adversarial.astype(np.int16) - clean).reshape(len(clean), -1).max(axis=1)
            self._report_rows(table, chunk, linf_B > most, f"lie outside the ball of {most}/255")
            recorded = (content[name].to_numpy() for name in ("linf", "l2"))
            measured = distances(torch.from_numpy(np.array(adversarial)), torch.from_numpy(clean))
            for name, was, now in zip(("linf", "l2"), recorded, measured, strict=True):
                differs_B = ~np.isclose(was, now.numpy(), rtol=1e-4, atol=_ROUNDING)
                self._report_rows(table, chunk, differs_B, f"are not at the distance recorded in `{name}`")
            bar.advance(len(clean))

    def _check_predictions(self, images: ChunkedTable | None, predictions: Sequence[Predictions], bar: Bar) -> None:
        """Checks all tables of predictions on one set of images: the adversarial ones in a table, or the clean ones."""
        prefix = "" if images is None else "adversarial_"
        for _, table in predictions:
            self._check_ranges(table, prefix, bar)
        try:
            self._repeat_predictions(images, predictions, prefix)
        except (OSError, pa.ArrowException):
            return  # the chunk is damaged, which was reported when it was read above

    def _check_ranges(self, table: ChunkedTable, prefix: str, bar: Bar) -> None:
        """Checks that predictions are classes and confidences are shares."""
        classes = self.blueprint.experiment.data.classes_count
        for chunk, content in self._readable_chunks(table):
            prediction_B = content[f"{prefix}prediction"].to_numpy()
            confidence_B = content[f"{prefix}confidence"].to_numpy()
            is_no_class_B = (prediction_B < 0) | (prediction_B >= classes)
            self._report_rows(table, chunk, is_no_class_B, f"have a prediction outside 0 to {classes - 1}")
            is_no_share_B = ~((confidence_B >= 0) & (confidence_B <= 1 + _ROUNDING))  # true of NaN as well
            self._report_rows(table, chunk, is_no_share_B, "have a confidence outside 0 to 1")
            bar.advance(len(prediction_B))

    def _repeat_predictions(self, images: ChunkedTable | None, predictions: Sequence[Predictions], prefix: str) -> None:
        """Draws a chunk and a sample of its images, and compares what every network predicts on them now.

        The networks see the whole chunk, as they did in the run, because the size of a batch changes the last bits.
        """
        chunk = int(self.rng.integers(len(self.blueprint.rows)))
        rows = self.blueprint.rows[chunk]
        is_drawn_B = np.zeros(rows, dtype=bool)
        is_drawn_B[self.rng.permutation(rows)[: self.sample]] = True
        shown = self.images.read(chunk)
        if images is not None:
            shown = np.array(adversarial_images(images.read_chunk(self.store, chunk, rows)))
        images_BCHW = torch.from_numpy(shown).to(torch.float32) / 255
        for members, table in predictions:
            if self.unreadable.intersection(members):
                continue
            was_B = table.read_chunk(self.store, chunk, rows)[f"{prefix}prediction"].to_numpy()
            with torch.no_grad():
                logits_BK = self.networks.mean_of(members)(images_BCHW)
            best_B2 = logits_BK.topk(2, dim=1).values
            is_tie_B = (best_B2[:, 0] - best_B2[:, 1] < _TIE).numpy()
            differs_B = (logits_BK.argmax(dim=1).numpy() != was_B) & ~is_tie_B
            self.found.checked["predictions made again"] += int(is_drawn_B.sum())
            self._report_rows(table, chunk, differs_B & is_drawn_B, "are predicted differently now")

    def _readable_chunks(self, table: ChunkedTable) -> Iterator[tuple[int, pa.Table]]:
        """Yields the chunks of a finished table that can be read and hold the right images; reports the others."""
        self.found.checked["tables"] += 1
        try:
            about = table.about(self.store)
        except (OSError, ValueError, pa.ArrowException) as problem:
            self._report(f"{table.folder}: cannot be read ({reason_of(problem)})")
            return
        if about.get("fingerprint") != table.fingerprint or fingerprint_of(about["inputs"]) != table.fingerprint:
            self._report(f"{table.folder}: the settings recorded in the file are not those that its name stands for")
        if about.get("rows") != self.blueprint.rows:
            self._report(f"{table.folder}: holds chunks of {about.get('rows')} rows, not {self.blueprint.rows}")
            return
        for chunk, rows in enumerate(self.blueprint.rows):
            try:
                content = table.read_chunk(self.store, chunk, rows)
            except (OSError, pa.ArrowException) as problem:
                self._report(f"{table.folder}: chunk {chunk} is damaged ({reason_of(problem)})")
                continue
            has_images = content["image_id"].to_pylist() == self.images.ids_of(chunk)
            if not has_images or content["label"].to_pylist() != self.images.labels_of(chunk):
                self._report(f"{table.folder}: chunk {chunk} does not hold the images, or the labels, that it should")
                continue
            self.found.checked["rows"] += rows
            yield chunk, content
