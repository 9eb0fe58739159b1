"""How a sweep draws its settings: at random, by Optuna's TPE, or along a grid; the same settings never twice."""

import json
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ray.tune.search import Searcher

from pipelines.sweep.space import Settings, Space, label_of

if TYPE_CHECKING:
    import optuna

SearcherName = Literal["random", "optuna", "grid"]
# A draw that was taken before is drawn again, so often; then the space counts as used up.
_PATIENCE = 1_000
_MOST_LISTED = 10_000


class DistinctSearch(Searcher):  # type: ignore[misc]
    """Optuna's ask and tell under Ray Tune. Its state is plain JSON, and the same seed draws the same settings.

    Args:
        space: what may be drawn. kind: how. seed: of the draws. samples: how many there will be.
        metric: what is to be large.
    """

    def __init__(self, space: Space, kind: SearcherName, seed: int, samples: int, metric: str) -> None:
        super().__init__(metric=metric, mode="max")
        self.space, self.kind, self.seed, self.samples = space, kind, seed, samples
        self._asked: dict[str, dict[str, Any]] = {}  # by Tune's trial id: number in the study, parameters, score
        self._start()

    def _start(self) -> None:
        """A study that knows what was told; what was asked before a restart is not asked again."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed = self.seed + len(self._asked)
        # with few samples, Optuna's usual ten at random at the start would be all of them
        learning = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, max(2, self.samples // 3)))
        sampler = learning if self.kind == "optuna" else optuna.samplers.RandomSampler(seed=self.seed)
        self._study: optuna.Study = optuna.create_study(direction="maximize", sampler=sampler)
        self._at_random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self._running: dict[str, optuna.trial.Trial] = {}
        for asked in self._asked.values():
            if asked["score"] is not None:
                self._learn(asked)

    def _distributions(self) -> "dict[str, optuna.distributions.BaseDistribution]":
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        found: dict[str, optuna.distributions.BaseDistribution] = {}
        for key, dimension in self.space.ranges.items():
            assert dimension.low is not None and dimension.high is not None
            if dimension.scale == "integer":
                found[key] = IntDistribution(int(dimension.low), int(dimension.high))
            else:
                found[key] = FloatDistribution(dimension.low, dimension.high, log=dimension.scale == "log")
        for key, values in self.space.choices.items():
            found[key] = CategoricalDistribution([_parameter(value) for value in values])
        return found

    def _settings(self, parameters: dict[str, Any]) -> dict[str, Any]:
        settings = {}
        for key in self.space.keys:
            if key in self.space.ranges:
                settings[key] = self.space.ranges[key].value(parameters[key])
            else:
                named = {_parameter(value): value for value in self.space.choices[key]}
                settings[key] = named[parameters[key]]
        return settings

    def suggest(self, trial_id: str) -> Any:
        """Settings that no trial has had, for one more trial; or that there are none left."""
        taken = {_word(asked["settings"]) for asked in self._asked.values()}
        left = [settings for settings in self._listed() if _word(settings) not in taken]
        if self.kind == "grid":
            return self._ask(trial_id, left[0]) if left else Searcher.FINISHED
        if self._is_discrete and not left:
            return Searcher.FINISHED
        for _ in range(len(taken) + _PATIENCE):  # after a restart, random draws what is known once more
            trial = self._study.ask(self._distributions())
            settings = self._settings(trial.params)
            if _word(settings) not in taken:
                self._running[trial_id] = trial
                return self._ask(trial_id, settings, trial.params)
            self._refuse(trial, left)
        return Searcher.FINISHED

    def _ask(self, trial_id: str, settings: Settings, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        self._asked[trial_id] = {"settings": settings, "parameters": parameters, "score": None}
        return {"settings": settings}

    def _refuse(self, trial: "optuna.trial.Trial", left: list[Settings]) -> None:
        """Settings that were taken; a searcher that learns would propose them again, so it is told others."""
        import optuna

        self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        if self.kind != "optuna":
            return
        other = self._at_random.ask(self._distributions()).params
        if left:
            other = {key: _parameter(value) for key, value in left[len(self._study.trials) % len(left)].items()}
        self._study.enqueue_trial(other)

    @property
    def _is_discrete(self) -> bool:
        """Whether every setting can be listed."""
        return self.space.size <= _MOST_LISTED

    def _listed(self) -> list[Settings]:
        """Every setting of the grid or of a space that can be listed."""
        if self.kind == "grid":
            values = self.space.grid()
        elif self._is_discrete:
            values = {k: list(range(int(d.low or 0), int(d.high or 0) + 1)) for k, d in self.space.ranges.items()}
            values |= self.space.choices
        else:
            return []
        return [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learns how a trial ended; one that broke off teaches nothing."""
        import optuna

        score = None if result is None or error else result.get(self.metric)
        if trial_id not in self._asked:  # its state was damaged
            return
        self._asked[trial_id]["score"] = score
        trial = self._running.pop(trial_id, None)
        if trial is not None:
            state = optuna.trial.TrialState.COMPLETE if score is not None else optuna.trial.TrialState.FAIL
            self._study.tell(trial, score, state=state)
        elif score is not None:
            self._learn(self._asked[trial_id])  # it was asked for before a restart

    def _learn(self, asked: dict[str, Any]) -> None:
        import optuna

        parameters, score = asked["parameters"], asked["score"]
        if parameters is None:  # of a grid, which learns nothing
            return
        self._study.add_trial(
            optuna.trial.create_trial(params=parameters, distributions=self._distributions(), value=score)
        )

    def save(self, checkpoint_path: str) -> None:
        """What was asked and told, as JSON."""
        Path(checkpoint_path).write_text(json.dumps(self._asked))

    def restore(self, checkpoint_path: str) -> None:
        """Goes on from what `save` left; from the start where that is damaged, which repeats no trial that is known."""
        try:
            self._asked = json.loads(Path(checkpoint_path).read_text())
        except ValueError:
            self._asked = {}
        self._start()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_study", "_at_random", "_running")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _parameter(value: Any) -> float | int | str:
    """A setting as Optuna takes it: a number, or a word."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else label_of(value)


def _word(settings: Settings) -> str:
    return json.dumps(settings, sort_keys=True)
