"""What Witness takes from Ray that has no public name. A test names the Ray version that it was last checked with."""


def startable_nodes() -> list[dict[str, float]]:
    """The resources of every node that the cluster's autoscaler may start, one entry per node; empty without one.

    Ray has no public way to ask for this: `ray.nodes()` and the state API tell of nodes that are up, and a request for
    more workers than are up should not be refused where the autoscaler would start their nodes.
    """
    from ray._private.state import state

    config = state.get_cluster_config()
    groups = [] if config is None else config.node_group_configs
    return [dict(group.resources) for group in groups for _ in range(max(group.max_count, 0))]
