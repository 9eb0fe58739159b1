"""The private interfaces of Ray that Witness uses have not changed since the version that they were checked with."""

import ray
from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

from pipelines.compute.ray_internals import startable_nodes

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
