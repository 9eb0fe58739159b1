"""Runs in MLflow while their work goes on: marked as under way, with the loss of each fine-tune and the machine's load.

The losses are curves of the experiment's run, side by side. The run of a surrogate gets its own from the files, after
its gain: MLflow's plots show at first what a run got first.

This is a view of what the files say, and never more: a thread reads the progress that workers write to the store, and
sends it with short time-outs. While a server is down nothing is sent, nobody waits, and nothing is lost, because the
report logs the curves from the files at the end.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.report.described import description
from pipelines.report.to_mlflow import parent_run, pending_run, place_of
from pipelines.stages.blueprint import Blueprint
from pipelines.tracking.load import MachineLoad
from pipelines.tracking.runs import Ended, Runs, log_to_mlflow

_EVERY = 5.0  # seconds between two looks
_PAUSE = 60.0  # seconds after one that failed
_PATIENCE = 15.0  # seconds for a look that is under way when the work ends
_PROGRESS = "-progress.json"


@contextmanager
def shown_live(blueprint: Blueprint) -> Iterator[None]:
    """Shows the work inside the block in MLflow while it goes on, and how it ended."""
    live, over = Live(blueprint), threading.Event()

    def follow() -> None:
        while not over.wait(_EVERY if live.look() else _PAUSE):
            pass

    thread = threading.Thread(target=follow, name="mlflow", daemon=True)
    thread.start()
    status: Ended = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        over.set()
        # A server that is down may hold up the thread for as long as its time-outs; nobody waits for that.
        # The first look is waited for: it may be creating the database, and would leave a part of it.
        thread.join(0 if live.is_heard is False else _PATIENCE)
        if live.is_heard and not thread.is_alive():
            live.end(status)


class Live:
    """What MLflow is told of an experiment while it is worked on.

    Runs that an earlier process left as under way, because it was killed, are marked so at the first look. The same
    work, when it is resumed, goes on in the same runs.

    Args:
        blueprint: of the experiment, whose lock is held.

    Attributes:
        is_heard: whether the last look reached MLflow; None before the end of the first.
    """

    def __init__(self, blueprint: Blueprint) -> None:
        self.is_heard: bool | None = None
        self._blueprint, self._place = blueprint, place_of(blueprint)
        self._made_here = {own.name: own for own in blueprint.planned if own.align is not None}
        self._began = time.time()
        self._load: MachineLoad | None = None
        self._parent: str | None = None
        self._runs: dict[str, str] = {}
        self._steps: dict[str, int] = {}

    def look(self) -> bool:
        """Sends what has changed; returns whether MLflow was reached."""
        is_heard = log_to_mlflow(self._blueprint.experiment, lambda line: None, "", self._send)
        self.is_heard = is_heard
        return is_heard

    def end(self, status: Ended) -> None:
        """Marks all runs that were opened here as ended, unless MLflow cannot be reached."""

        def write(runs: Runs) -> None:
            for run in (*self._runs.values(), *([self._parent] if self._parent else [])):
                runs.end(run, status)

        log_to_mlflow(self._blueprint.experiment, lambda line: None, "", write)

    def _send(self, runs: Runs) -> None:
        if self._parent is None:
            runs.mark_killed(runs.left_open(self._place))
            parent = parent_run(runs, self._blueprint, self._began)
            runs.describe(parent, description(self._blueprint, None))
            runs.open(parent, self._place)
            self._parent, self._began = parent, runs.began(parent)
        now, self._load = time.time(), self._load or MachineLoad()
        runs.note_alive(self._parent)
        runs.log_points(self._parent, self._load.points(now, now - self._began))
        for name, (done, loss) in self._under_way().items():
            if name not in self._runs:
                run = pending_run(runs, self._blueprint, self._parent, self._made_here[name])
                runs.open(run, self._place)
                self._runs[name], self._steps[name] = run, runs.last_step(self._parent, _curve(name))
            if done - 1 > self._steps[name]:  # one that was resumed does some steps again
                runs.log_points(self._parent, [(_curve(name), loss, now, done - 1)])
                self._steps[name] = done - 1

    def _under_way(self) -> dict[str, tuple[int, float]]:
        """For each surrogate that is being made: how many steps are done, and the loss of the last one."""
        from pipelines.compute.ray_train import RUNS  # which imports torch, as the work does

        store, found = self._blueprint.store, {}
        for file in store.stamps(RUNS):
            name = file.removesuffix(_PROGRESS).rpartition("-")[0]
            if not file.endswith(_PROGRESS) or name not in self._made_here:
                continue
            match store.read_json(f"{RUNS}/{file}"):
                case {"done": int(done), "loss": float(loss)} if done > 0:
                    found[name] = (done, loss)
        return found


def _curve(surrogate: str) -> str:
    """The metric that holds the loss of a surrogate; MLflow does not allow the sign before its seed."""
    return f"live loss/{surrogate.replace('~', ' ')}"
