"""Images are those of timm's and torchvision's transforms bit for bit where an experiment has a network's values."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
import torchvision
from image_sets import folder_of, noise, npz, parquet, png
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from align_core.images import Fit, ImageSetConfig, open_image_set, read_images
from align_core.images.fit import Interpolation
from align_core.models import Classifier

SIZES = [
    (333, 257),
    (500, 375),
    (224, 224),
    (231, 640),
    (160, 161),
    (97, 300),
    (1001, 333),
    (375, 500),
    (256, 257),
    (47, 48),
]
# Crop shares 0.875, 0.9 and 0.95, the first with bilinear and the others with bicubic interpolation.
NETWORKS = [
    ("tf_mobilenetv3_small_minimal_100.in1k", 224, 256, "bilinear"),
    ("levit_128s.fb_dist_in1k", 224, 248, "bicubic"),
    ("test_vit.r160_in1k", 160, 168, "bicubic"),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 50 JPEG files of odd sizes: enlarged noise, as smooth as photographs."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "one").mkdir()
    for number in range(50):
        width, height = SIZES[number % len(SIZES)]
        small = Image.fromarray(noise(9 + number, 11, 3, seed=number))
        picture = small.resize((width + number // 10, height + number % 7), Image.Resampling.BICUBIC)
        picture.save(folder / "one" / f"{number:02d}.jpg", quality=90)
    return folder


def ours(photos: Path, fit: Fit) -> Tensor:
    images = open_image_set(ImageSetConfig(kind="folder", path=str(photos)), fit)
    return torch.from_numpy(read_images(images, images.listing()[0]))


def theirs(photos: Path, transform: Any) -> Iterator[Any]:
    for file in sorted(photos.rglob("*.jpg")):
        with Image.open(file) as picture:
            yield transform(picture.convert("RGB"))


@pytest.mark.parametrize(("name", "size", "resize", "interpolation"), NETWORKS)
def test_timms_transform_and_top_1(
    photos: Path, name: str, size: int, resize: int, interpolation: Interpolation
) -> None:
    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=50).eval()
    data = resolve_data_config({}, model=net)
    assert (data["input_size"][-1], math.floor(size / data["crop_pct"]), data["interpolation"]) == (
        size, resize, interpolation,
    )  # fmt: skip
    images_BCHW = ours(photos, Fit(size, resize, interpolation))
    whole = torch.stack(list(theirs(photos, create_transform(**data, normalize=False))))
    assert torch.equal(images_BCHW, whole)
    normalised = torch.stack(list(theirs(photos, create_transform(**data))))
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    classifier = Classifier(net, data["mean"], data["std"], size)
    with torch.no_grad():
        logits, expected = classifier(images_BCHW / 255), net(normalised)
    assert torch.equal(seen[0], normalised)
    # A random network prefers one class for all images: without its mean logits, top-1 tells images apart.
    top_1 = (logits - logits.mean(dim=0)).argmax(dim=1)
    assert torch.equal(top_1, (expected - expected.mean(dim=0)).argmax(dim=1))
    assert len(top_1.unique()) > 5


@pytest.mark.parametrize(
    "weights",
    [
        torchvision.models.ResNet18_Weights.IMAGENET1K_V1,
        torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
        torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    ],
    ids=str,
)
def test_torchvisions_transforms(photos: Path, weights: Any) -> None:
    published = weights.transforms()
    fit = Fit(published.crop_size[0], published.resize_size[0], published.interpolation.value)
    classifier = Classifier(nn.Flatten(), published.mean, published.std)
    expected = torch.stack(list(theirs(photos, published)))
    assert torch.equal(classifier(ours(photos, fit) / 255), expected.flatten(1))


@pytest.mark.parametrize("kind", ["folder", "npz", "parquet"])
def test_every_kind_of_image_set_is_resized_in_the_same_way(tmp_path: Path, kind: str) -> None:
    pictures = np.stack([noise(30, 20, 3, seed=seed) for seed in range(2)])
    if kind == "folder":
        files = {f"a/{number}.png": png(picture) for number, picture in enumerate(pictures)}
        config = ImageSetConfig(kind="folder", path=str(folder_of(tmp_path, files)))
    elif kind == "npz":
        config = npz(tmp_path / "a.npz", pictures, [0, 1])
    else:
        tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
        config = parquet(tmp_path / "a.parquet", image=tensors, label=[0, 1])
    fit = Fit(8, 11, "bilinear")
    images = open_image_set(config, fit)
    expected = np.stack([fit.apply(Image.fromarray(picture)) for picture in pictures])
    ids = images.listing()[0]
    assert np.array_equal(read_images(images, ids), expected)
    assert np.array_equal(np.stack([np.asarray(images.picture(image_id)) for image_id in ids]), pictures)
    assert images.encoded(ids[0]) != images.encoded(ids[1])
    assert pictures[0].tobytes() in images.encoded(ids[0]) or images.encoded(ids[0]) == png(pictures[0])


def test_an_array_of_the_crops_size_is_resized_all_the_same(tmp_path: Path) -> None:
    pixels, fit = noise(8, 8, 3), Fit(8, 10)
    images = open_image_set(npz(tmp_path / "a.npz", pixels[None], [0]), fit)
    (image_id,) = images.listing()[0]
    assert np.array_equal(images.read(image_id), fit.apply(Image.fromarray(pixels)))
    assert not np.array_equal(images.read(image_id), pixels.transpose(2, 0, 1))


def test_a_crop_larger_than_its_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="resize 7 is below image_size 8"):
        Fit(8, 7)
