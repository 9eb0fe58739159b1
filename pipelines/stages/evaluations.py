"""What is predicted on which images, and which of these predictions are made, and kept, together.

A worker that has read a chunk of images shows it to every network, as many in a turn as it holds at once. What they
predict is one file until the tables are finished (see `pipelines.storage.joint_table`). Nothing here needs torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from align_core.corruptions.known import Corruption
from pipelines.stages.cells import Predictions
from pipelines.storage.chunked_table import ChunkedTable
from pipelines.storage.joint_table import JointFolder, JointTable

UNDER_WAY = ".evaluate"
"""The folder of the store that holds predictions whose tables are not finished."""
_SHARED = ("image_id", "label")


@dataclass(frozen=True)
class Turn:
    """Predictions that are made together: of some networks, on one set of images.

    Attributes:
        images: the table of adversarial images; None for the clean ones.
        predictions: who predicts, and the table of the predictions.
        joint: the same tables, in this order, while they are filled.
        corruption: of the clean images, if there is one.
    """

    images: ChunkedTable | None
    predictions: Sequence[Predictions]
    joint: JointTable
    corruption: Corruption | None = None


@dataclass(frozen=True)
class Evaluation:
    """One set of images, and every prediction that is wanted on it.

    Args:
        images: the table of adversarial images; None for the clean ones.
        predictions: who predicts, and the table of the predictions.
        most: how many networks predict in one turn.
        corruption: of the clean images, if there is one.
    """

    images: ChunkedTable | None
    predictions: Sequence[Predictions]
    most: int
    corruption: Corruption | None = None

    @cached_property
    def joint(self) -> JointFolder:
        """Where the predictions are until their tables are finished."""
        clean = f"corrupted/{self.corruption}" if self.corruption else "clean"
        folder = clean if self.images is None else self.images.folder
        groups = tuple(tuple(own.table for own in turn) for turn in self._turns)
        return JointFolder(f"{UNDER_WAY}/{folder}", groups, parent=groups[0][0].folder.rpartition("/")[0])

    @property
    def _turns(self) -> list[Sequence[Predictions]]:
        return [self.predictions[start : start + self.most] for start in range(0, len(self.predictions), self.most)]

    @property
    def turns(self) -> list[Turn]:
        """The predictions turn by turn."""
        turns = enumerate(self._turns)
        return [
            Turn(self.images, own, JointTable(self.joint, number, _SHARED), self.corruption) for number, own in turns
        ]


def in_turns(evaluations: Iterable[Evaluation]) -> list[Turn]:
    """All turns, in the order in which they are made: each goes over all images, so networks are loaded once."""
    turns = [one.turns for one in evaluations]
    return [own[turn] for turn in range(max(map(len, turns), default=0)) for own in turns if turn < len(own)]
