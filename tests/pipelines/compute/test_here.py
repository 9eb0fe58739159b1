"""A worker on a node that lacks a file of the experiment says which node and which file, and what can be done."""

import re
import socket
import sys
from pathlib import Path

import pytest
from hand_made import hand_made

from align_core.errors import InputError
from pipelines.compute.images import opened
from pipelines.stages.payload import network_loader


def test_a_node_without_the_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    experiment = hand_made(tmp_path)
    blueprint, data = experiment.blueprint(), experiment.blueprint().experiment.data
    (tmp_path / "images.npz").unlink()  # as on a node to which nobody copied them
    (tmp_path / "near.safetensors").unlink()
    opened.cache_clear()
    node = re.escape(f"there is no such file or folder on the node {socket.gethostname()}")
    with pytest.raises(InputError, match=rf"images\.npz: {node}.* shared disk, .*s3://"):
        opened(data.test, data.fit, 1)
    with pytest.raises(InputError, match=rf"near\.safetensors: {node}.* shared disk, .*s3://"):
        network_loader(blueprint).load("near", "cpu")
