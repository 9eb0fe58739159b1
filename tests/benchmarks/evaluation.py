"""The speed of predictions on chunks of images, as a share of the bare forward loop on tensors that are there.

    python -m tests.benchmarks.evaluation --device cuda --network resnet50 --precision fp32 bf16 --chunk 100 500

It runs from the folder of the repository and needs no installation of Witness: torch, timm, numpy, pillow, safetensors
and tqdm are enough. Reading and writing are left out: where there is a GPU, its worker does them beside the predictions
(see `busy`).
"""

import statistics
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from align_core.images.decoding import Pixels
from align_core.model_config import Precision
from align_core.models import Classifier
from align_core.numerics import set_policy
from align_core.predicted import predicted
from pipelines.compute.sent import sent
from tests.benchmarks.clock import in_alternation, median_ratio, peak_mib, run_as_workers_do, seconds
from tests.benchmarks.networks import KINDS, Kind, Subject, flags_of_device, subject

_NETWORKS = (1, 5)  # that predict on a chunk while it is there


def measure() -> Iterator[str]:
    """Predictions of a network on CIFAR's images, and of one on pictures of 224 pixels, on one thread."""
    yield from lines(KINDS["resnet20"], "cpu", "fp32", 100, chunks=4)
    yield from lines(KINDS["resnet18"], "cpu", "fp32", 100, chunks=1)


def lines(
    kind: Kind, device: str, precision: Precision, chunk: int, chunks: int, rounds: int = 3, threads: int = 1
) -> Iterator[str]:
    """A line for one network that predicts on each chunk, and one for several."""
    set_policy(threads, precision)
    on = subject(kind, chunk, device, precision)
    held: Pixels = on.images_BCHW.cpu().numpy()
    for count in _NETWORKS:
        own = partial(_predicting, on, held, device, count, chunks)
        bare = partial(_bare, on.ours, on.images_BCHW.to(torch.float32) / 255, count * chunks)
        for work in (own, bare):
            seconds(work, device)
        memory = peak_mib(own, device)
        spent, around = in_alternation(own, bare, rounds, device)
        share = 100 * median_ratio(around, spent)
        images = count * chunks * chunk
        yield (
            f"evaluation: {kind.name}, chunks of {chunk}, {count} network{'s' * (count > 1)}, {device}, {precision}: "
            f"{images / statistics.median(spent):,.0f} predictions/s, {share:.0f} % of the bare loop's speed "
            f"({images / statistics.median(around):,.0f}/s), "
            f"{'memory not seen' if memory is None else f'at most {memory:,.0f} MiB'}"
        )


@torch.no_grad()
def _predicting(on: Subject, held: Pixels, device: str, networks: int, chunks: int) -> None:
    """What a worker does with chunks once they are decoded, but for writing what it found."""
    for _ in range(chunks):
        images_BCHW = sent(held, device).to(torch.float32) / 255
        for _ in range(networks):
            logits_BK = on.ours(images_BCHW, on.ids)
            assert logits_BK.isfinite().all()
            predicted(logits_BK, on.labels_B)


@torch.no_grad()
def _bare(network: Classifier, images_BCHW: Tensor, passes: int) -> None:
    for _ in range(passes):
        network(images_BCHW)


def main() -> None:
    """Times predictions on one device in several precisions and sizes of chunks."""
    assert __doc__
    parser = flags_of_device(__doc__.splitlines()[0], "resnet50")
    parser.add_argument("--chunk", type=int, nargs="+", default=[100], help="images of a chunk")
    parser.add_argument("--chunks", type=int, default=20, help="how many are measured at once")
    own = parser.parse_args()
    run_as_workers_do("tests.benchmarks.evaluation")
    for precision in own.precision:
        for chunk in own.chunk:
            for line in lines(KINDS[own.network], own.device, precision, chunk, own.chunks):
                print(line, flush=True)


if __name__ == "__main__":
    main()
