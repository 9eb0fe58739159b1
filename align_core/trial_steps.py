"""A fine-tune of two steps on random images: by it a model is tried, and the memory of a step is measured."""

import torch
from torch import Tensor, nn

from align_core.align_config import AlignConfig, OptimizerConfig, Training
from align_core.alignment import Alignment
from align_core.models import Classifier, copy_of
from align_core.peak_memory import Measured, memory_of_pass, weights_of

_SEED = 20_240_924


def begun_fine_tune(source: Classifier, rows: int, classes: int, training: Training) -> Alignment:
    """An alignment of two steps, of so many rows each, by these settings. Raises InputError about what is frozen."""
    align = AlignConfig(
        temperature=1.0,
        label_weight=1.0,
        optimizer=OptimizerConfig(name=training.optimizer, lr=1e-4),
        batchnorm=training.batchnorm,
        freeze=list(training.freeze),
        terms=list(training.terms),
    )
    return Alignment(source, [_Witness(rows, classes)], align, total_steps=2, seed=0)


def step_memory(classifier: Classifier, images_BCHW: Tensor, classes: int, training: Training) -> Measured:
    """What a step takes, beside the weights, by these settings."""
    rows = min(len(images_BCHW), training.rows)
    begun = {count: begun_fine_tune(copy_of(classifier), count, classes, training) for count in (rows, 2 * rows)}

    def step(count: int) -> None:
        begun[count].step(images_BCHW.repeat(2, 1, 1, 1)[:count], torch.arange(count) % classes)

    held = [weight for own in begun.values() for weight in weights_of(own.source)]
    return memory_of_pass(step, rows, held)


class _Witness(nn.Module):
    """Stands for a witness: the same random logits for any images."""

    def __init__(self, rows: int, classes: int) -> None:
        super().__init__()
        self.logits_BK = torch.randn(rows, classes, generator=torch.Generator().manual_seed(_SEED))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.logits_BK
