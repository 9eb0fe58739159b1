"""A tiny experiment with a separate model for every role. Tests plan it, and do not run it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

NETS = """
from torch import nn

def net(width=4, out=3):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, out))

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
"""


def content() -> dict[str, Any]:
    def model(name: str, family: str) -> dict[str, Any]:
        return {"factory": "nets_of_any_size:net", "weights": f"{name}.safetensors", "family": family}

    npz = {"kind": "npz", "path": "images.npz"}
    return {
        "name": "tiny",
        "data": {
            "classes": 3, "image_size": 8, "train": {**npz, "take": [0, 8]}, "test": {**npz, "take": [8, 16]},
        },
        "models": {
            "a": model("a", "plain"), "b": model("b", "plain"), "c": model("c", "other"), "d": model("d", "other"),
            "e": {"factory": "nets_of_any_size:net", "args": {"width": 5}, "train": {}},
        },
        "source": "a", "witnesses": ["b"], "targets": ["c", "e"], "controls": [],
        "variants": {"v": {}},
        "attacks": {"x": {"method": "vni", "eps": "8/255"}},
    }  # fmt: skip


def write_tiny_experiment(folder: Path) -> None:
    """Writes the experiment file and the files that its keys, or those that tests set, refer to."""
    (folder / "nets_of_any_size.py").write_text(NETS)
    (folder / "code").mkdir()
    for name in ("nets_of_any_size", "net_of_the_code"):
        (folder / "code" / f"{name}.py").write_text(NETS)
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content()))
    images = np.random.default_rng(0).integers(0, 256, (26, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images[:16], labels=np.arange(16) % 3)
    np.savez(folder / "others.npz", images=images[16:19], labels=np.arange(3))
    np.savez(folder / "greys.npz", images=images[:16, :, :, 0], labels=np.arange(16) % 3)
    np.save(folder / "made.npy", images[8:16])  # "adversarial" images of the test images, which are as they were
    np.save(folder / "made_again.npy", images[8:16] ^ 1)
    (folder / "classes.txt").write_text("dog\ncat\nbird\n")
    (folder / "photos" / "cat").mkdir(parents=True)
    for index in range(2):
        Image.fromarray(images[20 + index]).save(folder / "photos" / "cat" / f"{index}.png")
    (folder / "photos" / "cat" / "broken.png").write_bytes(b"")
    (folder / "photos.csv").write_text("path,label\ncat/1.png,2\n")
    (folder / "columns.csv").write_text("path,label,file,class\ncat/0.png,0,cat/1.png,2\n")
    for name, classes in (("numbers", ("dog", "cat", "bird")), ("numbers_again", ("cat", "dog", "bird"))):
        rows = "".join(f"{number},{own}\n" for number, own in enumerate(classes))
        (folder / f"{name}.csv").write_text(f"number,name\n{rows}")
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(images[23:25].transpose(0, 3, 1, 2)))
    pq.write_table(pa.table({"image": tensors, "label": [0, 1], "row": ["x", "y"]}), folder / "few.parquet")
    (folder / "aligned").mkdir()
    for seed, name in enumerate(("a", "b", "c", "d", "aligned/model")):
        torch.manual_seed(seed)
        net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.Identity(), torch.nn.Identity(), torch.nn.Linear(4, 3)
        )
        save_file(net.state_dict(), folder / f"{name}.safetensors")
    card = {"model": {"factory": "nets_of_any_size:net", "weights": "gone.safetensors", "family": "plain"}}
    (folder / "aligned" / "card.json").write_text(json.dumps(card))
