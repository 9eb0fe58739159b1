"""experiment.yaml in the output folder: every setting as it took effect and, as comments, hashes and versions."""

from typing import Any

import yaml

from align_core.downloads import hub_revision
from pipelines.experiment.written import as_yaml
from pipelines.stages.blueprint import Blueprint
from pipelines.storage.versions import versions

FOUND = "\n# What was found, and what found it:\n"
"""The line between the settings and what was found."""


def write_resolved(blueprint: Blueprint) -> None:
    """Writes the file, unless it is there already and says the same."""
    revisions = _revisions(blueprint)
    found = {**resolved_hashes(blueprint), **({"revisions": revisions} if revisions else {}), "versions": versions()}
    comments = "".join(f"# {line}\n" for line in yaml.safe_dump(found, sort_keys=False).splitlines())
    text = f"{resolved_settings(blueprint)}{FOUND}{comments}".encode()
    if not blueprint.store.exists("experiment.yaml") or blueprint.store.read("experiment.yaml") != text:
        blueprint.store.write("experiment.yaml", text)


def resolved_settings(blueprint: Blueprint) -> str:
    """The settings, as YAML that `witness run` accepts."""
    return as_yaml(blueprint.experiment)


def resolved_hashes(blueprint: Blueprint) -> dict[str, Any]:
    """The hash of every network's weights and of every image set, and what is folded."""
    return {
        "weights": {name: network.digest for name, network in blueprint.networks.items()},
        "folded": blueprint.inspected.folding,
        "images": {role: manifest.digest for role, manifest in blueprint.inspected.manifests.items()},
    }


def _revisions(blueprint: Blueprint) -> dict[str, str]:
    """The commit of every model that came from Hugging Face's hub by its name there."""
    found = {name: hub_revision(config.timm) for name, config in blueprint.experiment.models.items() if config.timm}
    return {name: commit for name, commit in found.items() if commit}
