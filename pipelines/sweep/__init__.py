"""Sweeps: a surrogate's settings, chosen by trying many of them on validation images (`witness tune`).

What flows in is an experiment with `data.validation` and `validation_targets`, and a search space (a name in
`tune_spaces`, or a file). Ray Tune runs the trials. Each makes the surrogate with the settings that it drew, attacks
it, and measures gain and clean accuracy on the validation images and targets. What flows out lies in
`<output>/<name>/sweeps/<space>/`: a record per trial, trials.csv, sweep.png, and best.yaml, which is a whole experiment
with the chosen settings. `witness tune` runs that experiment at the end, which is the only time that a sweep uses the
test images and test targets.

Where to begin:
* `command.py`: the order of things, from the request to the result (`tune_experiment`).
* `study.py`: the sweep as it was asked for (`Options`), how many trials run at once, and which earlier sweeps and
  trials count as the same.
* `entry.py`: the surrogate whose settings are searched, and how settings are laid over those of its entry.
* `space.py`: the keys of a space file, and whether they suit the surrogate.
* `search.py`: how the next settings are drawn.
* `ray_tune.py`: how Ray Tune is started and resumed, and how it stops trials early. `watch.py`: what is shown and
  logged meanwhile.
* `trial.py`: one trial, in a worker. `validation.py`: what is measured in it. `record.py`: what is stored of it.
* `choice.py`: the table of trials, and which of them is chosen. `best.py`: the experiment that the choice leads to.
* `figure.py`: sweep.png. `to_mlflow.py`: MLflow's part.

>>> request = Request(Path("experiment.yaml"))             # from pipelines.run
>>> result = tune_experiment(request, Options("temperature", samples=12))
>>> result.best                                            # None if every trial costs too much clean accuracy
{'align.temperature': 21.63}
>>> pandas.DataFrame(result.rows)                          # trials.csv
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.sweep.choice import TrialRow as TrialRow
    from pipelines.sweep.command import SweepResult as SweepResult
    from pipelines.sweep.command import search_settings as search_settings
    from pipelines.sweep.command import tune_experiment as tune_experiment
    from pipelines.sweep.space import Space as Space
    from pipelines.sweep.space import load_space as load_space
    from pipelines.sweep.study import Options as Options

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "choice": ("TrialRow",),
        "command": (
            "SweepResult",
            "search_settings",
            "tune_experiment",
        ),
        "space": (
            "Space",
            "load_space",
        ),
        "study": ("Options",),
    },
)
