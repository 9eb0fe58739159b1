"""What a user should know of images, models and attacks before hours are spent on them, said by every command that
computes with them, or says what a run would do.
"""

from pipelines.progress import Progress
from pipelines.stages.blueprint import Blueprint
from pipelines.stages.resizing import resizings


def not_there(blueprint: Blueprint) -> list[str]:
    """A line for each network and table that cannot be made, with the reason, as every command says it."""
    return [f"Not there: {hole}" for hole in blueprint.holes()]


def notes_on(blueprint: Blueprint) -> list[str]:
    """A line for everything that was left out, converted or resized, or that looks wrong.

    What this finds out about models is added to `blueprint.inspected.unsaved`.
    """
    inspected = blueprint.inspected
    images = [f"data.{role}: {note}" for role, manifest in inspected.manifests.items() for note in manifest.notes]
    return [*images, *inspected.published.lines(), *resizings(blueprint), *inspected.notes]


def say_notes(blueprint: Blueprint, progress: Progress) -> None:
    """Says all of this, and adds every duplicate to the log, of which the notes on images name the first ones."""
    for line in notes_on(blueprint):
        progress.say(line)
    for role, manifest in blueprint.inspected.manifests.items():
        for duplicate in manifest.duplicates:
            progress.note(f"data.{role}: {duplicate}")
