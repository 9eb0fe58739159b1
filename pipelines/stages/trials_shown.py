"""Shows the trials of models, which take minutes where there are many, once one has to be made."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol, TypeVar

from pipelines.progress import Bar, Progress

Found = TypeVar("Found")


class Shown(Protocol):
    """Makes of a trial one that is shown under the name of its model."""

    def __call__(self, name: str, trial: Callable[[], Found]) -> Callable[[], Found]:
        """Returns a trial that does and returns the same, and counts in the stage of work under this name."""
        ...


@contextmanager
def trials_shown(progress: Progress) -> Iterator[Shown]:
    """Shows a stage of work from the first trial on, and none where every model is known from an earlier command."""
    with ExitStack() as stack:
        bars: list[Bar] = []

        def shown(name: str, trial: Callable[[], Found]) -> Callable[[], Found]:
            def with_bar() -> Found:
                if not bars:
                    bars.append(stack.enter_context(progress.stage("inspect models", None, "models")))
                    if not progress.is_live:
                        progress.say("inspect models: each is built and tried as it will be used")
                found = trial()
                bars[0].advance(1, name)
                return found

            return with_bar

        yield shown
