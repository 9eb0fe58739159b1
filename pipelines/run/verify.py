"""Checks a finished experiment: hashes, counts, value ranges, eps-balls, samples of predictions and reasons, report.

The check trusts nothing that was recorded when the results were made: it decodes the images, reads the weights and
computes the distances and the tables of the report anew, all in this process. What is damaged is a finding, and never
ends the check.
"""

import numpy as np

from align_core.errors import InputError
from align_core.numerics import set_policy
from pipelines.compute.loading import LoadedNetworks
from pipelines.progress import Progress
from pipelines.run.request import Request, open_blueprint
from pipelines.run.verification import Repetition, Verification
from pipelines.run.verify_inputs import (
    check_image_sets,
    check_made_elsewhere,
    check_networks,
    has_results,
    other_networks,
    other_tables,
    unusable_inputs,
)
from pipelines.run.verify_reasons import ReasonVerifier
from pipelines.run.verify_report import check_report, check_resolved
from pipelines.run.verify_tables import TableVerifier
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.payload import network_loader


def verify_experiment(request: Request, sample: int = 20, seed: int = 0) -> Verification:
    """Checks a finished experiment.

    Args:
        request: the experiment.
        sample: number of images of each set, clean or adversarial, for which every prediction is repeated, and of the
            sample of reasons, for which these are. They are spread over all chunks.
        seed: of the draw of these images.

    Where images or weights cannot be used any more, nothing beyond them is checked. Raises InputError if the experiment
    is not valid, was never run, or `sample` is negative, and RunFailed if it is not finished.
    """
    if sample < 0:
        raise InputError(f"--sample {sample}: must be 0 or more")
    experiment, progress, found = request.experiment(), Progress(request.quiet), Verification()
    try:
        blueprint = open_blueprint(request, experiment=experiment, trusting=False)
    except InputError as problem:  # an input is damaged, if results were made of it
        if not has_results(experiment):
            raise
        found.findings += unusable_inputs(experiment, str(problem))
        return found
    found.findings += other_networks(blueprint)
    if found.findings:  # all tables depend on them
        return found
    others = other_tables(blueprint) if not blueprint.missing("align") else []
    if not others:
        blueprint.check_finished()
    compute = blueprint.experiment.compute
    set_policy(compute.threads, compute.precision)
    networks = LoadedNetworks(network_loader(blueprint).of_any_weights(), "cpu", compute.networks)
    check_image_sets(blueprint, found, progress)
    check_made_elsewhere(blueprint, found)
    unreadable = check_networks(blueprint, networks, found)
    if others:
        found.findings += others
        return found
    again = Repetition(networks, unreadable, sample, np.random.default_rng(seed))
    TableVerifier(blueprint, again, found).run(progress)
    ReasonVerifier(blueprint, again, found).run(progress)
    check_report(blueprint, found)
    check_resolved(blueprint, found)
    _say_what_was_trusted(blueprint, found, sample)
    return found


def _say_what_was_trusted(blueprint: Blueprint, found: Verification, sample: int) -> None:
    images = len(blueprint.inspected.manifests["test"])
    if sample < images:
        found.trusted.append(f"the predictions on all but {sample} of the {images:,} images of each set")
    found.trusted.append("Python and the libraries that are installed here, and the training of the networks")
