"""A finished experiment looked at again: hashes, counts, ranges and balls, and a sample of predictions made anew.

Nothing of what was noted when the tables were made is trusted: images are decoded, weights read, distances computed
again, in this process alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from align_core.attacks import distances
from align_core.errors import InputError
from align_core.manifest import inspect_images
from align_core.weights import hash_weights
from pipelines.compute.images import adversarial_images
from pipelines.compute.loading import LoadedNetworks, use_threads
from pipelines.progress import Bar, Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.payload import network_loader, test_images
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.store import fingerprint_of

# Two logits that are nearer than this may change places on other hardware.
_TIE = 1e-3
# Distances are kept in single precision.
_ROUNDING = 1e-6


@dataclass
class Verification:
    """What was found wrong, in words, and how much was looked at, by kind."""

    findings: list[str] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """For people."""
        counts = ", ".join(f"{count:,} {kind}" for kind, count in self.checked.items())
        found = [f"wrong: {finding}" for finding in self.findings]
        return [*found, f"verified: {counts}; {len(self.findings) or 'nothing'} wrong"]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"findings": self.findings, "checked": dict(self.checked)}


def verify(request: Request, sample: int = 20, seed: int = 0) -> Verification:
    """Looks at everything; of each clean or adversarial set, `sample` images drawn with `seed` are predicted anew.

    Raises InputError, and RunFailed where the experiment is not finished.
    """
    if sample < 0:
        raise InputError(f"--sample {sample}: must be 0 or more")
    blueprint, progress = open_blueprint(request), Progress(request.quiet)
    blueprint.check_finished()
    use_threads(blueprint.experiment.compute.threads)
    return Verifier(blueprint, sample, np.random.default_rng(seed)).run(progress)


class Verifier:
    """Looks at one finished experiment."""

    def __init__(self, blueprint: Blueprint, sample: int, rng: np.random.Generator) -> None:
        self.blueprint, self.sample, self.rng = blueprint, sample, rng
        self.found = Verification()
        self.images, self.ids = test_images(blueprint), blueprint.inspected.manifests["test"].ids
        self.networks = LoadedNetworks(network_loader(blueprint), "cpu", blueprint.experiment.compute.networks)

    def run(self, progress: Progress) -> Verification:
        """Everything, image sets and networks first."""
        blueprint = self.blueprint
        self._image_sets(progress)
        self._weights()
        clean = list(blueprint.clean().values())
        tables = len(clean) + sum(1 + len(looks) for looks in blueprint.outcomes().values())
        with progress.stage("verify", len(self.ids) * tables, "rows") as bar:
            self._looks(None, clean, bar)
            for (surrogate, attack), looks in blueprint.outcomes().items():
                images = blueprint.adversarial(blueprint.by_name[surrogate], attack)
                self._adversarial(images, blueprint.experiment.attacks[attack].eps, bar)
                self._looks(images, looks, bar)
        return self.found

    def _looks(self, images: ChunkedTable | None, looks: list[Predictions], bar: Bar) -> None:
        for _, table in looks:
            self._predictions(table, "" if images is None else "adversarial_", bar)
        self._again(images, looks)

    def _wrong(self, what: str) -> None:
        self.found.findings.append(what)

    def _image_sets(self, progress: Progress) -> None:
        data = self.blueprint.experiment.data
        for role, config in self.blueprint.experiment.image_sets().items():
            known = self.blueprint.inspected.manifests[role]
            with progress.stage(f"look at data.{role} again", len(known), "images") as bar:
                advance: Callable[[int], None] = bar.set
                seen = inspect_images(config, data.image_size, advance)
            self.found.checked["images"] += len(seen)
            if seen.digest != known.digest:
                self._wrong(f"data.{role}: the images are not those that the results were made from")

    def _weights(self) -> None:
        for name, network in self.blueprint.networks.items():
            if network.digest is None:  # no run needed it
                continue
            self.found.checked["networks"] += 1
            try:
                if network.stored:
                    digest = hash_weights(load_safetensors(self.blueprint.store.read(network.stored)))
                else:
                    digest = hash_weights(self.networks.network(name).net.state_dict())
            except (InputError, OSError, SafetensorError) as problem:
                self._wrong(f"{name}: its weights cannot be read ({problem})")
                continue
            if digest != network.digest:
                self._wrong(f"{name}: its weights are not those that the results were made with")

    def _chunks(self, table: ChunkedTable) -> Iterator[tuple[int, pa.Table]]:
        """The chunks of a finished table that can be read and hold the images that they should."""
        blueprint, store = self.blueprint, self.blueprint.store
        self.found.checked["tables"] += 1
        try:
            about = table.about(store)
        except (OSError, ValueError, pa.ArrowException) as problem:
            self._wrong(f"{table.folder}: cannot be read ({problem})")
            return
        if about.get("fingerprint") != table.fingerprint or fingerprint_of(about["inputs"]) != table.fingerprint:
            self._wrong(f"{table.folder}: says that something else determined it than its name does")
        if about.get("rows") != blueprint.rows:
            self._wrong(f"{table.folder}: holds chunks of {about.get('rows')} rows, not {blueprint.rows}")
            return
        for chunk, rows in enumerate(blueprint.rows):
            try:
                content = table.read_chunk(store, chunk, rows)
            except (OSError, pa.ArrowException) as problem:
                self._wrong(f"{table.folder}: chunk {chunk} is damaged ({problem})")
                continue
            is_whole = content["image_id"].to_pylist() == self.images.ids_of(chunk)
            if not is_whole or content["label"].to_pylist() != self.images.labels_of(chunk):
                self._wrong(f"{table.folder}: chunk {chunk} does not hold the images, or the labels, that it should")
                continue
            self.found.checked["rows"] += rows
            yield chunk, content

    def _adversarial(self, table: ChunkedTable, eps: float, bar: Bar) -> None:
        """8-bit images within the ball around the clean ones, at the distances that stand beside them."""
        most = int(eps * 255 + _ROUNDING)
        for chunk, content in self._chunks(table):
            clean = self.images.read(chunk)
            adversarial = adversarial_images(content)
            if adversarial.shape != clean.shape or adversarial.dtype != np.uint8:
                self._wrong(
                    f"{table.folder}: chunk {chunk} holds {adversarial.dtype} images of {adversarial.shape[1:]}"
                )
                continue
            away_B = np.abs(adversarial.astype(np.int16) - clean).reshape(len(clean), -1).max(axis=1)
            self._rows(table, chunk, away_B > most, f"lie outside the ball of {most}/255")
            recorded = (content[name].to_numpy() for name in ("linf", "l2"))
            measured = distances(torch.from_numpy(np.array(adversarial)), torch.from_numpy(clean))
            for name, was, now in zip(("linf", "l2"), recorded, measured, strict=True):
                differs_B = ~np.isclose(was, now.numpy(), rtol=1e-4, atol=_ROUNDING)
                self._rows(table, chunk, differs_B, f"are not at the distance that `{name}` says")
            bar.advance(len(clean))

    def _predictions(self, table: ChunkedTable, prefix: str, bar: Bar) -> None:
        classes = self.blueprint.experiment.data.classes
        for chunk, content in self._chunks(table):
            prediction_B = content[f"{prefix}prediction"].to_numpy()
            confidence_B = content[f"{prefix}confidence"].to_numpy()
            self._rows(table, chunk, (prediction_B < 0) | (prediction_B >= classes), f"have no class below {classes}")
            outside_B = ~((confidence_B >= 0) & (confidence_B <= 1 + _ROUNDING))  # NaN too
            self._rows(table, chunk, outside_B, "have a confidence outside 0 to 1")
            bar.advance(len(prediction_B))

    def _rows(self, table: ChunkedTable, chunk: int, are_wrong_B: npt.NDArray[np.bool_], what: str) -> None:
        if are_wrong_B.any():
            ids = np.array(self.images.ids_of(chunk))[are_wrong_B]
            self._wrong(f"{table.folder}: {len(ids)} images of chunk {chunk} {what}: {', '.join(ids[:3])}")

    def _again(self, images: ChunkedTable | None, looks: list[Predictions]) -> None:
        """One chunk is shown to every network once more, and the sample of its rows compared."""
        chunk = int(self.rng.integers(len(self.blueprint.rows)))
        rows = self.blueprint.rows[chunk]
        drawn = self.rng.permutation(rows)[: self.sample]
        try:
            shown = self.images.read(chunk)
            if images is not None:
                shown = np.array(adversarial_images(images.read_chunk(self.blueprint.store, chunk, rows)))
            prefix = "" if images is None else "adversarial_"
            images_BCHW = torch.from_numpy(shown).to(torch.float32) / 255
            for members, table in looks:
                was_B = table.read_chunk(self.blueprint.store, chunk, rows)[f"{prefix}prediction"].to_numpy()
                with torch.no_grad():
                    logits_BK = self.networks.mean_of(members)(images_BCHW)
                self._compare(table, chunk, was_B, logits_BK, drawn)
        except (OSError, pa.ArrowException):
            return  # said where the chunk was read first

    def _compare(
        self, table: ChunkedTable, chunk: int, was_B: npt.NDArray[np.int64], logits_BK: torch.Tensor, drawn: Any
    ) -> None:
        best_B2 = logits_BK.topk(2, dim=1).values
        is_tie_B = (best_B2[:, 0] - best_B2[:, 1] < _TIE).numpy()
        differs_B = (logits_BK.argmax(dim=1).numpy() != was_B) & ~is_tie_B
        chosen_B = np.zeros(len(was_B), dtype=bool)
        chosen_B[drawn] = True
        self.found.checked["predictions made again"] += len(drawn)
        self._rows(table, chunk, differs_B & chosen_B, "are predicted otherwise now")
