"""Follows the trials of a sweep while Ray Tune runs them, in a look about every second."""

from pipelines.progress import Bar
from pipelines.sweep.choice import chosen
from pipelines.sweep.record import Record
from pipelines.sweep.study import Study
from pipelines.sweep.to_mlflow import log_sweep


class Watch:
    """Shows how many trials have ended and which is the best so far, and logs those that ended to MLflow.

    A look costs one listing of the trials' folder. Only records that changed are read, and MLflow is only asked about
    trials that have ended since it was told of the others.

    Args:
        study: the sweep. bar: shows its trials.
    """

    def __init__(self, study: Study, bar: Bar) -> None:
        self._study, self._bar = study, bar
        self._reader = study.reader()
        self._ended: dict[str, Record] = {}
        self._logged: dict[str, Record] = {}

    def look(self) -> None:
        """Takes up what has changed since the last look. What the server missed is sent when the next trial ends."""
        study = self._study
        ended = {fingerprint: record for fingerprint, record in self._reader.read().items() if record.is_final}
        if ended == self._ended:
            return
        self._ended = ended
        best = chosen(ended, study.options.max_clean_drop)
        self._bar.set(len(ended), "" if best is None else f"best so far {ended[best].last['gain']:+.1f} points")
        new = {own: record for own, record in ended.items() if self._logged.get(own) is not record}
        if log_sweep(study.blueprint, study.entry, study.space, new, study.fingerprint):
            self._logged |= new
