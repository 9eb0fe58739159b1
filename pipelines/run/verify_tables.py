"""The checks of the tables over images: what each file holds, the eps-balls, and a sample of predictions made again."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from align_core.attacks import AttackConfig, ForeignConfig, MadeElsewhere, distances
from align_core.attacks.lengths import levels_of, square_levels_of
from align_core.corruptions.corrupt import corrupted
from align_core.corruptions.known import Corruption
from align_core.errors import InputError, reason_of
from align_core.images.decoding import Pixels
from align_core.model_config import Precision
from align_core.own_code import own_code
from align_core.similarity import structural_similarity
from pipelines.compute.images import adversarial_images
from pipelines.progress import Bar, Progress
from pipelines.run.verification import UNREADABLE, Repetition, Verification, problem_of_settings
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.cells import Predictions
from pipelines.stages.clean_images import test_images
from pipelines.stages.payload import towards_of
from pipelines.storage.chunked_table import ChunkedTable

Attack = AttackConfig | ForeignConfig | MadeElsewhere

# A logit may be off by this share of the image's largest where it is computed on other hardware or in another batch.
_TIE: Mapping[Precision, float] = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 0.03}
_CONFIDENCE: Mapping[Precision, float] = {"fp32": 5e-3, "tf32": 0.03, "bf16": 0.15}
# Distances are stored in single precision.
_ROUNDING = 1e-6


class TableVerifier:
    """Checks every table of one finished experiment; `run` does all of it.

    Args:
        blueprint: the experiment.
        repetition: of what is computed again, and by which networks.
        found: takes the findings and counts.
    """

    def __init__(self, blueprint: Blueprint, repetition: Repetition, found: Verification) -> None:
        self.blueprint, self.store, self.again, self.found = blueprint, blueprint.store, repetition, found
        self.images, self.towards = test_images(blueprint), towards_of(blueprint)
        self._bad_chunks: set[int] = set()

    def run(self, progress: Progress) -> None:
        """Checks the tables over clean and corrupted images, then those over adversarial images."""
        blueprint = self.blueprint
        clean, outcomes = list(blueprint.clean().values()), blueprint.outcomes()
        tables = len(clean) + len(blueprint.corrupted())
        tables += sum(1 + len(predictions) for predictions in outcomes.values())
        with progress.stage("verify", len(self.images.image_ids) * tables, "rows") as bar:
            shown = self._clean_images(self._draw())
            self._check_predictions(shown, clean, "", bar)
            for corruption in blueprint.corruptions:
                own = [predictions for (other, _), predictions in blueprint.corrupted().items() if other == corruption]
                self._check_predictions(self._with(corruption, shown), own, "", bar)
            for (surrogate, attack), table in blueprint.all_adversarial().items():
                drawn = self._draw()
                shown = self._check_adversarial(table, blueprint.experiment.all_attacks[attack], drawn, bar)
                self._check_predictions(shown, outcomes[surrogate, attack], "adversarial_", bar)

    def _draw(self) -> list[int]:
        """Positions of a sample of the images."""
        return self.again.draw(len(self.images.image_ids))

    def _clean_images(self, positions: Sequence[int]) -> dict[int, Pixels]:
        """The clean images [C, H, W] at these positions, those that can be decoded."""
        shown: dict[int, Pixels] = {}
        for chunk, rows in enumerate(self.images.chunks):
            own = [position for position in positions if position in rows]
            pixels = self._clean(chunk) if own else None
            if pixels is not None:
                shown |= {position: np.array(pixels[position - rows.start]) for position in own}
        return shown

    def _with(self, corruption: Corruption, shown: Mapping[int, Pixels]) -> dict[int, Pixels]:
        """Clean images at some positions with a corruption."""
        if not shown:
            return {}
        ids = [self.images.image_ids[position] for position in shown]
        made = corrupted(np.stack(list(shown.values())), ids, corruption, self.blueprint.experiment.seed)
        return dict(zip(shown, made, strict=True))

    def _clean(self, chunk: int) -> Pixels | None:
        """The clean images of a chunk; None, reported once, where they cannot be decoded any more."""
        if chunk in self._bad_chunks:
            return None
        try:
            return self.images.read(chunk)
        except (InputError, OSError, ValueError, KeyError) as problem:
            self._bad_chunks.add(chunk)
            self.found.report(f"data.test: the images of chunk {chunk} cannot be read ({reason_of(problem)})")
            return None

    def _report_rows(self, table: ChunkedTable, chunk: int, are_wrong_B: npt.NDArray[np.bool_], what: str) -> None:
        if are_wrong_B.any():
            ids = np.array(self.images.ids_of(chunk))[are_wrong_B]
            self.found.report(f"{table.folder}: {len(ids)} images of chunk {chunk} {what}: {', '.join(ids[:3])}")

    def _check_adversarial(
        self, table: ChunkedTable, attack: Attack, drawn: Sequence[int], bar: Bar
    ) -> dict[int, Pixels]:
        """Checks that images are 8-bit, lie in the attack's ball around the clean ones, and at the distances recorded.

        Returns the images at the positions drawn, those that can be read.
        """
        image = pa.fixed_shape_tensor(pa.uint8(), self.blueprint.inspected.shape)
        towards = {"towards": pa.int64()} if attack.is_targeted else {}
        columns = {**towards, "image": image, **dict.fromkeys(("linf", "l2", "ssim"), pa.float32())}
        columns |= {"gradients": pa.float32()} if isinstance(attack, ForeignConfig) else {}
        columns |= {"pass_rows": pa.int32()} if isinstance(attack, AttackConfig) else {}
        shown: dict[int, Pixels] = {}
        for chunk, content in self._readable_chunks(table, columns):
            bar.advance(len(content))
            clean = self._clean(chunk)
            if clean is None:
                continue
            adversarial = np.array(adversarial_images(content))
            self._report_rows(table, chunk, *_outside(attack, adversarial, np.asarray(clean)))
            recorded = (content[name].to_numpy() for name in ("linf", "l2"))
            measured = distances(torch.from_numpy(adversarial), torch.from_numpy(np.array(clean)))
            for name, was, now in zip(("linf", "l2"), recorded, measured, strict=True):
                differs_B = ~np.isclose(was, now.numpy(), rtol=1e-4, atol=_ROUNDING)
                self._report_rows(table, chunk, differs_B, f"are not at the distance recorded in `{name}`")
            rows = self.images.chunks[chunk]
            own = [position - rows.start for position in drawn if position in rows]
            shown |= {rows.start + row: adversarial[row] for row in own}
            self._check_similarity(table, chunk, content, own, adversarial, np.asarray(clean))
            if attack.is_targeted:
                self._check_towards(table, attack.towards, chunk, content, own, np.asarray(clean))
        return shown

    def _check_similarity(
        self,
        table: ChunkedTable,
        chunk: int,
        content: pa.Table,
        rows: Sequence[int],
        adversarial: Pixels,
        clean: Pixels,
    ) -> None:
        """Computes the structural similarity of these rows of a chunk anew."""
        if not rows:
            return
        differs_B = np.zeros(len(content), dtype=np.bool_)
        one, other = (torch.from_numpy(np.array(pixels[rows])) for pixels in (adversarial, clean))
        now = structural_similarity(one, other).numpy()
        differs_B[rows] = ~np.isclose(content["ssim"].to_numpy()[rows], now, rtol=1e-4, atol=1e-5)
        self._report_rows(table, chunk, differs_B, "have another structural similarity than recorded in `ssim`")

    def _check_towards(
        self, table: ChunkedTable, rule: str, chunk: int, content: pa.Table, rows: Sequence[int], clean: Pixels
    ) -> None:
        """Checks that the images of a chunk were led to the classes that the rule finds.

        Where a network decides, it is asked again for these rows, and a class counts as its least likely one where its
        logit is within the tolerance of the smallest but for the label's.
        """
        was_B, known_B = torch.tensor(content["towards"].to_pylist()), self.towards.known(rule, chunk)
        labels_B = torch.tensor(self.images.labels_of(chunk))
        is_none_B = (was_B < 0) | (was_B >= self.towards.classes) | (was_B == labels_B)
        self._report_rows(table, chunk, is_none_B.numpy(), "are led to no class, or to their label")
        if known_B is not None:
            self._report_rows(table, chunk, (was_B != known_B).numpy(), f"are led to another class than the {rule} one")
        elif rows and not is_none_B.any() and self.towards.source not in self.again.unreadable:
            try:
                logits_BK = self.towards.source_logits(torch.from_numpy(np.array(clean[rows])), self.again.networks)
            except Exception as problem:  # of the user's code
                self.found.report(f"{table.folder}: {self.towards.source} cannot predict again ({reason_of(problem)})")
                return
            smallest_B = logits_BK.scatter(1, labels_B[rows, None], torch.inf).amin(dim=1)
            tolerance_B = _TIE[self.blueprint.experiment.compute.precision] * logits_BK.abs().amax(dim=1)
            differs_B = np.zeros(len(content), dtype=np.bool_)
            differs_B[rows] = ~(logits_BK.gather(1, was_B[rows, None])[:, 0] - smallest_B <= tolerance_B).numpy()
            self._report_rows(table, chunk, differs_B, "are not led to the source's least likely class")

    def _check_predictions(
        self, shown: Mapping[int, Pixels], predictions: Sequence[Predictions], prefix: str, bar: Bar
    ) -> None:
        """Checks all tables of predictions on one set of images, of which `shown` holds those that were drawn."""
        positions = sorted(shown)
        batch = torch.from_numpy(np.stack([shown[position] for position in positions])) if positions else None
        for members, table in predictions:
            was = self._checked_rows(table, prefix, positions, bar)
            if batch is not None and not self.again.unreadable.intersection(members):
                self._repeat(table, members, batch.to(torch.float32) / 255, positions, was)

    def _checked_rows(
        self, table: ChunkedTable, prefix: str, positions: Sequence[int], bar: Bar
    ) -> dict[int, tuple[int, float]]:
        """Checks that predictions are classes and confidences are shares; returns both of the drawn images."""
        classes = self.blueprint.experiment.data.classes_count
        columns = {f"{prefix}prediction": pa.int64(), f"{prefix}confidence": pa.float32()}
        was = {}
        for chunk, content in self._readable_chunks(table, columns):
            prediction_B, confidence_B = (content[name].to_numpy() for name in columns)
            is_no_class_B = (prediction_B < 0) | (prediction_B >= classes)
            self._report_rows(table, chunk, is_no_class_B, f"have a prediction outside 0 to {classes - 1}")
            is_no_share_B = (confidence_B < 0) | (confidence_B > 1 + _ROUNDING)
            self._report_rows(table, chunk, is_no_share_B, "have a confidence outside 0 to 1")
            rows = self.images.chunks[chunk]
            for position in positions:
                if position in rows and not is_no_class_B[position - rows.start]:
                    row = position - rows.start
                    was[position] = int(prediction_B[row]), float(confidence_B[row])
            bar.advance(len(prediction_B))
        return was

    def _repeat(
        self,
        table: ChunkedTable,
        members: Sequence[str],
        images_BCHW: torch.Tensor,
        positions: Sequence[int],
        was: Mapping[int, tuple[int, float]],
    ) -> None:
        """Compares what a network predicts on the drawn images now with what was recorded.

        A prediction counts as the same where its logit is within the tolerance of the largest.
        """
        ids = [self.images.image_ids[position] for position in positions]
        rows = [row for row, position in enumerate(positions) if position in was]
        if not rows:
            return
        precision = self.blueprint.experiment.compute.precision
        try:
            with own_code("predicting"), torch.no_grad():
                logits_BK = self.again.networks.mean_of(members)(images_BCHW, ids)[rows].float()
        except InputError as problem:
            self.found.report(f"{table.folder}: {', '.join(members)} cannot predict again ({reason_of(problem)})")
            return
        drawn = [positions[row] for row in rows]
        was_B = torch.tensor([was[position][0] for position in drawn])
        confidence_B = torch.tensor([was[position][1] for position in drawn])
        own_B = logits_BK.gather(1, was_B[:, None])[:, 0]
        tolerance_B = _TIE[precision] * logits_BK.abs().amax(dim=1)
        differs_B = ~(logits_BK.amax(dim=1) - own_B <= tolerance_B)  # true of NaN as well
        labels_B = torch.tensor([self.images.labels[position] for position in drawn])
        now_B = logits_BK.softmax(dim=1).gather(1, labels_B[:, None])[:, 0]
        is_other_B = ~((now_B - confidence_B).abs() <= _CONFIDENCE[precision]) & ~differs_B
        self.found.checked["predictions made again"] += len(rows)
        for are_wrong_B, what in ((differs_B, "are predicted differently"), (is_other_B, "have another confidence")):
            wrong = [
                self.images.image_ids[p] for p, is_wrong in zip(drawn, are_wrong_B.tolist(), strict=True) if is_wrong
            ]
            if wrong:
                self.found.report(
                    f"{table.folder}: {len(wrong)} of {len(rows)} images {what} now: {', '.join(wrong[:3])}"
                )

    def _readable_chunks(
        self, table: ChunkedTable, columns: Mapping[str, pa.DataType]
    ) -> Iterator[tuple[int, pa.Table]]:
        """Yields the chunks of a finished table that can be read and hold the right images; reports the others.

        `columns` are those that it has beside `image_id` and `label`.
        """
        self.found.checked["tables"] += 1
        sizes = self.blueprint.rows
        try:
            about = table.about(self.store)
        except UNREADABLE as problem:
            self.found.report(f"{table.folder}: cannot be read ({reason_of(problem)})")
            return
        if other := problem_of_settings(table, about):
            self.found.report(f"{table.folder}: {other}")
        if about.get("rows") != sizes or about["groups"] != sizes:
            rows = f"{sum(about['groups'])} rows in {len(about['groups'])} chunks"
            self.found.report(f"{table.folder}: holds {rows}, not {sum(sizes)} in {len(sizes)}, or does not say so")
            return
        wanted = {"image_id": pa.string(), "label": pa.int64(), **columns}
        for chunk, size in enumerate(sizes):
            try:
                content = table.read_chunk(self.store, chunk, size)
                problem_found = self._problem_of(chunk, content, wanted)
            except UNREADABLE as problem:
                problem_found = f"chunk {chunk} is damaged ({reason_of(problem)})"
            if problem_found:
                self.found.report(f"{table.folder}: {problem_found}")
                continue
            self.found.checked["rows"] += size
            yield chunk, content

    def _problem_of(self, chunk: int, content: pa.Table, wanted: Mapping[str, pa.DataType]) -> str | None:
        """What is wrong with the columns of a chunk, or with the images that it holds."""
        columns = dict(zip(content.schema.names, content.schema.types, strict=True))
        if columns != wanted:
            shown = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            return f"chunk {chunk} has the columns {shown}; they are not those of this table"
        if empty := [name for name in wanted if content[name].null_count]:
            return f"chunk {chunk} has empty cells in {', '.join(empty)}"
        has_images = content["image_id"].to_pylist() == self.images.ids_of(chunk)
        if not has_images or content["label"].to_pylist() != self.images.labels_of(chunk):
            return f"chunk {chunk} does not hold the images, or the labels, that it should"
        return None


def _outside(attack: Attack, adversarial: Pixels, clean: Pixels) -> tuple[npt.NDArray[np.bool_], str]:
    """Which images lie outside of the attack's ball, in whole levels as they are crafted, and how a message says so."""
    levels = np.abs(adversarial.astype(np.int64) - clean).reshape(len(clean), -1)
    if attack.norm == "linf":
        most = levels_of(attack.eps)
        return levels.max(axis=1) > most, f"lie outside the ball of {most}/255"
    outside_B = (levels**2).sum(axis=1) > square_levels_of(attack.eps)
    return outside_B, f"lie outside the l2 ball of {attack.eps:g}"
