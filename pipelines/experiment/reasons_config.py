"""The section `reasons`: on what it is measured what may explain a gain."""

from pydantic import Field

from pipelines.experiment.section import Section

_MOST_IMAGES = 1_000_000


class ReasonsConfig(Section):
    """Reasons are measured where the experiment has this section, even an empty one.

    Attributes:
        sample: test images on which they are measured, of every class in proportion; all where there are no more.
        attack: whose images are the attacked points, and whose ball holds the random ones; by default the first attack
            of the experiment.
    """

    sample: int = Field(default=200, ge=1, le=_MOST_IMAGES)
    attack: str | None = None
