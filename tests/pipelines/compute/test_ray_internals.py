"""The private interfaces of Ray that Witness uses have not changed since the version that they were checked with."""

import ctypes
import os
import signal
from threading import Thread

import pytest
import ray
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

from pipelines.compute.ray_internals import sigterm_handler_kept, startable_nodes

CHECKED_WITH = "2.60"


def test_the_cluster_config_of_ray_is_as_expected(ray_cluster: None, monkeypatch) -> None:
    """Where this fails after an upgrade, look at `ray._private.state.state.get_cluster_config` and what it returns."""
    note = f"checked with Ray {CHECKED_WITH}, this is {ray.__version__}"
    assert startable_nodes() == [], note  # the local cluster has no autoscaler
    from ray._private.state import state

    groups = [
        NodeGroupConfig(resources={"CPU": 8, "GPU": 1}, max_count=2, name="gpu"),
        NodeGroupConfig(resources={"CPU": 4}, max_count=-1, name="unbounded"),
    ]
    monkeypatch.setattr(state, "get_cluster_config", lambda: ClusterConfig(node_group_configs=groups))
    assert startable_nodes() == [{"CPU": 8, "GPU": 1}] * 2, note


def test_the_handler_of_sigterm_is_kept_even_in_another_thread() -> None:
    """Ray's core installs one below Python, in whichever thread `ray.init` is called; here the signal is ignored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def as_ray_does() -> None:
        with sigterm_handler_kept():
            install = ctypes.CDLL(None).signal
            install.argtypes = [ctypes.c_int, ctypes.c_void_p]
            install(signal.SIGTERM, int(signal.SIG_IGN))
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        thread = Thread(target=as_ray_does)
        thread.start()
        thread.join()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
