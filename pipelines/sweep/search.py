"""How a sweep draws its settings: at random, by Optuna's TPE, or along a grid; the same settings never twice."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from threading import Event
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import BaseJournalBackend, JournalStorage
from optuna.trial import TrialState
from ray.tune.search import Searcher

from pipelines.sweep.settings import Settings, label_of
from pipelines.sweep.space import Dimension, Space

# After this many random draws in a row that were all tried before, a space that cannot be listed counts as used up.
_PATIENCE = 1_000
_MOST_LISTED = 10_000
_TRIAL_ID = "trial_id"

NO_MORE = Event()
"""Set where no more settings are to be drawn. It is no attribute of the search, of which Ray Tune holds copies."""


class DistinctSearch(Searcher):  # type: ignore[misc]
    """An Optuna study under Ray Tune that draws no settings twice and says when there are none left.

    Ray's own `OptunaSearch` does neither, and its state is a pickle. Here the state is Optuna's journal, as JSON. Ray
    Tune saves it together with its own state, so that after a restart both know the same trials. The same seed draws
    the same settings. A grid is gone through here, in the order of its file: Optuna's GridSampler shuffles it and
    raises an exception at its last point, since it wants to end a loop of Optuna's own.

    Args:
        space: the settings that may be drawn. kind: how they are drawn. seed: the seed of the draws.
        samples: how many settings will be asked for. metric: what Optuna maximises, in a trial's last report.
    """

    def __init__(
        self, space: Space, kind: Literal["random", "optuna", "grid"], seed: int, samples: int, metric: str
    ) -> None:
        super().__init__(metric=metric, mode="max")
        self.space, self.kind, self.seed, self.samples = space, kind, seed, samples
        values, ranges = (space.grid(), {}) if kind == "grid" else (space.choices, space.ranges)
        self._values = {key: {label_of(value): value for value in values[key]} for key in values}
        self._distributions = {key: _distribution(dimension) for key, dimension in ranges.items()}
        self._distributions |= {key: CategoricalDistribution(list(labels)) for key, labels in self._values.items()}
        is_listed = kind == "grid" or space.size <= _MOST_LISTED
        self._points = {self._word(point): point for point in _points(self._distributions)} if is_listed else {}
        self._journal = _Journal()
        self._replay()

    def _replay(self) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(self._journal)
        self._study = optuna.create_study(
            storage=storage, study_name="sweep", direction="maximize", load_if_exists=True
        )
        known = self._study.get_trials(deepcopy=False)
        self._tried = {self._word(trial.params) for trial in known if _TRIAL_ID in trial.user_attrs}
        self._study.sampler = optuna.samplers.TPESampler(
            seed=self.seed + len(self._tried),
            n_startup_trials=min(10, max(2, self.samples // 3)),  # Optuna's usual ten could be all that there are
        )
        # This study never learns. After a restart it repeats its draws, and `suggest` refuses those that were tried.
        self._at_random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self.seed))

    def _settings(self, parameters: dict[str, Any]) -> Settings:
        """Returns the settings for Optuna's parameters, in which choices are labels and numbers are not rounded."""
        values, ranges = self._values, self.space.ranges
        return {key: values[key][p] if key in values else ranges[key].value(p) for key, p in parameters.items()}

    def _word(self, parameters: dict[str, Any]) -> str:
        return json.dumps(self._settings(parameters), sort_keys=True)

    def suggest(self, trial_id: str) -> Any:
        """Returns settings that no trial has had, or FINISHED where none are left or wanted."""
        if NO_MORE.is_set():
            return Searcher.FINISHED
        for parameters in self._proposals():
            if self._word(parameters) not in self._tried:
                self._tried.add(self._word(parameters))
                self._add(parameters, state=TrialState.RUNNING, user_attrs={_TRIAL_ID: trial_id})
                return {"settings": self._settings(parameters)}
        return Searcher.FINISHED

    def _proposals(self) -> Iterator[dict[str, Any]]:
        left = [point for word, point in self._points.items() if word not in self._tried]
        if self._points and not left:
            return
        if self.kind == "optuna":
            proposal = self._study.ask(self._distributions)
            self._study.tell(proposal, state=TrialState.FAIL)  # `suggest` adds the trial where it accepts the proposal
            yield proposal.params
        if self.kind != "grid":  # TPE would only propose what was tried again, so a random draw takes its place
            for _ in range(len(self._tried) + _PATIENCE):
                yield self._at_random.ask(self._distributions).params
        yield from left

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna how a trial ended. One that failed teaches nothing, unless Ray Tune has run it again."""
        score = None if result is None or error else result.get(self.metric)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.user_attrs.get(_TRIAL_ID) == trial_id and trial.state == TrialState.RUNNING:
                self._study.tell(trial.number, score, TrialState.FAIL if score is None else TrialState.COMPLETE)
            elif trial.user_attrs.get(_TRIAL_ID) == trial_id and trial.state == TrialState.FAIL and score is not None:
                self._add(trial.params, value=score)

    def _add(self, parameters: dict[str, Any], **how: Any) -> None:
        trial = optuna.trial.create_trial(params=parameters, distributions=self._distributions, **how)
        self._study.add_trial(trial)

    def save(self, checkpoint_path: str) -> None:
        """Writes the journal to a file, as JSON."""
        Path(checkpoint_path).write_text(json.dumps(self._journal))

    def restore(self, checkpoint_path: str) -> None:
        """Resumes from a saved journal. Where it is damaged, the draws begin anew: records tell what has ended."""
        try:
            self._journal = _Journal(json.loads(Path(checkpoint_path).read_text()))
            self._replay()
        except Exception:  # whatever JSON and Optuna raise on a damaged journal
            self._journal = _Journal()
            self._replay()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_study", "_at_random", "_tried")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._replay()


class _Journal(list[dict[str, Any]], BaseJournalBackend):
    """The log of everything that happened in a study, from which Optuna builds it again."""

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.extend(logs)


def _distribution(dimension: Dimension) -> BaseDistribution:
    assert dimension.low is not None and dimension.high is not None
    if dimension.scale == "integer":
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.scale == "log")


def _points(distributions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields every combination of labels and whole numbers, in their order."""
    values = [range(d.low, d.high + 1) if isinstance(d, IntDistribution) else d.choices for d in distributions.values()]
    for combination in product(*values):
        yield dict(zip(distributions, combination, strict=True))
