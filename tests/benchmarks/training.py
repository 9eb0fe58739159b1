"""The speed of a fine-tune, with the reading of its images, as a share of the bare loop on tensors that are there.

    python -m tests.benchmarks.training --device cuda --network resnet50 --batch 128 --images jpeg --threads 16

It runs from the folder of the repository and needs no installation of Witness: torch, timm, numpy, pillow, safetensors
and tqdm are enough.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from align_core.align_config import AlignConfig, AugmentConfig, OptimizerConfig
from align_core.alignment import Alignment
from align_core.batches import Batches
from align_core.diverged import Taken
from align_core.images import ImageSetConfig, open_image_set
from align_core.model_config import Precision
from align_core.models import Classifier
from align_core.numerics import set_policy
from pipelines.compute.reading import TAKEN, batches_on
from tests.benchmarks.clock import peak_mib, run_as_workers_do
from tests.benchmarks.networks import KINDS, Kind, flags_of_device

ALIGN = AlignConfig(
    loss="kl", temperature=4.0, epochs=1000, augment=AugmentConfig(crop="none"), optimizer=OptimizerConfig(lr=1e-3)
)
PICTURE = (500, 375)  # the usual size of ImageNet's


def measure() -> Iterator[str]:
    """Alignment of a small network on pictures that have to be decoded, with one thread and one process that reads."""
    yield from lines(KINDS["mobilenetv1"], "cpu", "fp32", 32, "jpeg", 1, 8)


def lines(
    kind: Kind, device: str, precision: Precision, batch: int, images: str, threads: int, steps: int
) -> Iterator[str]:
    """A line that compares `steps` steps of a fine-tune with as many of the bare loop before and after it."""
    with tempfile.TemporaryDirectory() as folder:
        set_policy(threads if device == "cuda" else 1, precision)
        source, witness, bare_source = (_classifier(kind, device, precision, seed) for seed in (0, 1, 0))
        batches = _batches(Path(folder), kind, batch, images)
        alignment = Alignment(source, [witness], batches.align, len(batches), 0, steps_per_epoch=1)
        coming = batches_on(device, batches, range(len(batches)), threads, images == "jpeg")
        warm = 2 * threads + 4  # more steps than batches that have been read ahead
        list(_aligned(alignment, coming, 2))
        held = [(own.contiguous(memory_format=torch.channels_last), labels) for own, labels in islice(coming, 2)]
        optimizer = torch.optim.SGD(bare_source.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4)
        bare = partial(_bare, bare_source, witness, optimizer, held, steps)
        _bare(bare_source, witness, optimizer, held, 3)
        before = _seconds(bare, device)
        list(_aligned(alignment, coming, warm))
        own = _seconds(lambda: list(_aligned(alignment, coming, steps)), device)
        after = _seconds(bare, device)
        memory = peak_mib(lambda: list(_aligned(alignment, coming, 2)), device)
        share = statistics.mean((before, after)) / own
        yield (
            f"training: {kind.name}, batch {batch}, {images}, {threads} reading, {device}, {precision}: "
            f"{batch * steps / own:,.0f} images/s, {100 * share:.0f} % of the bare loop's speed "
            f"({batch * steps / before:,.0f} and {batch * steps / after:,.0f} images/s), "
            f"{'memory not seen' if memory is None else f'at most {memory:,.0f} MiB'}"
        )
        coming.close()  # type: ignore[attr-defined]


def _seconds(work: Callable[[], object], device: str) -> float:
    """By the clock on the wall, because other processes read for this one."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _classifier(kind: Kind, device: str, precision: Precision, seed: int) -> Classifier:
    torch.manual_seed(seed)
    network = Classifier(kind.make(), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).to(device)
    network.precision = precision
    return network.to(memory_format=torch.channels_last)


def _batches(folder: Path, kind: Kind, batch: int, images: str) -> Batches:
    """A thousand random pictures, or one batch where it is larger."""
    rng, count = np.random.default_rng(0), max(batch, 256)
    labels = rng.integers(0, kind.classes, count)
    if images == "jpeg":
        for number, label in enumerate(labels):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
            (folder / "set" / f"{label:04d}").mkdir(parents=True, exist_ok=True)
            picture = coarse.resize(PICTURE, Image.Resampling.BICUBIC)
            picture.save(folder / "set" / f"{label:04d}" / f"{number:04d}.jpg", quality=90)
        config = ImageSetConfig(kind="folder", path=str(folder / "set"))
    else:
        pixels = rng.integers(0, 256, (count, kind.side, kind.side, 3), dtype=np.uint8)
        np.savez(folder / "set.npz", images=pixels, labels=labels)
        config = ImageSetConfig(kind="npz", path=str(folder / "set.npz"))
    image_set = open_image_set(config, kind.side, 3)
    ids, _ = image_set.listing()
    return Batches(image_set, ids, labels.tolist(), AlignConfig(**{**_plain(ALIGN), "batch_size": batch}), 0)


def _plain(align: AlignConfig) -> dict[str, object]:
    return {name: getattr(align, name) for name in ("loss", "temperature", "epochs", "augment", "optimizer")}


def _aligned(alignment: Alignment, coming: Iterator[tuple[Tensor, Tensor]], steps: int) -> Iterator[dict[str, float]]:
    """Steps as a worker takes them, whose values are fetched after every few on a GPU, and after each on a CPU."""
    taken: list[Taken] = []
    for number, (images_BCHW, labels_B) in enumerate(islice(coming, steps)):
        taken.append(alignment.take(images_BCHW, labels_B))
        if len(taken) == (TAKEN if images_BCHW.is_cuda else 1) or number + 1 == steps:
            yield from alignment.settled(taken)
            taken.clear()


def _bare(
    source: Classifier,
    witness: Classifier,
    optimizer: torch.optim.Optimizer,
    held: list[tuple[Tensor, Tensor]],
    steps: int,
) -> None:
    """The loop that anyone would write first: two forward passes, one backward pass, one step of the optimiser."""
    source.train()
    temperature = ALIGN.temperature
    for step in range(steps):
        images_BCHW, _ = held[step % len(held)]
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            wanted_BK = (witness(images_BCHW) / temperature).log_softmax(dim=1)
        found_BK = (source(images_BCHW) / temperature).log_softmax(dim=1)
        loss = temperature**2 * F.kl_div(found_BK, wanted_BK, reduction="batchmean", log_target=True)
        loss.backward()
        optimizer.step()


def main() -> None:
    """Times a fine-tune on one device in several precisions."""
    assert __doc__
    parser = flags_of_device(__doc__.splitlines()[0], "resnet50")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", choices=["jpeg", "npz"], nargs="+", default=["npz"])
    parser.add_argument("--threads", type=int, default=1, help="processes that read images")
    parser.add_argument("--steps", type=int, default=20)
    own = parser.parse_args()
    run_as_workers_do("tests.benchmarks.training")
    for precision in own.precision:
        for images in own.images:
            for line in lines(KINDS[own.network], own.device, precision, own.batch, images, own.threads, own.steps):
                print(line, flush=True)


if __name__ == "__main__":
    main()
