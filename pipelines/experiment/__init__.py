"""What is asked for: the experiment file, read and checked before anything is computed.

What flows in is a YAML file and the settings of the command line. What flows out is an `Experiment`, a frozen object
with every default filled in, or an InputError that names the key at fault. No image and no weights are read here, and
neither torch nor Ray is imported. What depends on data is checked in `pipelines.stages.inspect`.

Where to begin:
* `config.py`: all keys with their types and defaults (those of image sets, models, alignments and attacks are in
  `align_core`), and `load_experiment`; `attack_kinds.py`: which class an attack of the file is of.
* `checks.py`: what must hold between keys, such as that no target is known to the attacker.
* `names.py`: names that are allowed or reserved, and the list of controls.
* `surrogates.py`: the surrogates that follow from an experiment, and the pairs that contrasts.csv compares.
* `factories.py`: finds the user's own modules and says which ones workers must be sent.
* `factory_code.py`: the code of a factory, or of a user's attack, as hashes, found by parsing.
* `written.py`: an experiment as a complete file again, without credentials.
* `yaml_file.py` and `explain.py`: strict YAML, `--set`, and messages such as "unknown key; did you mean ...".

>>> experiment = load_experiment(Path("my-resnets.yaml"), overrides=["align.temperature=16"])
>>> [surrogate.name for surrogate in surrogates_of(experiment)]
['source', 'aligned', 'label_only', 'witness', 'ensemble', 'aligned_ensemble']
"""

from typing import TYPE_CHECKING

from pipelines.exports import lazy_exports

if TYPE_CHECKING:
    from pipelines.experiment.checks import checked as checked
    from pipelines.experiment.config import Experiment as Experiment
    from pipelines.experiment.config import load_experiment as load_experiment
    from pipelines.experiment.surrogates import Surrogate as Surrogate
    from pipelines.experiment.surrogates import contrasts_of as contrasts_of
    from pipelines.experiment.surrogates import surrogates_of as surrogates_of
    from pipelines.experiment.written import as_yaml as as_yaml

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "checks": ("checked",),
        "config": (
            "Experiment",
            "load_experiment",
        ),
        "surrogates": (
            "Surrogate",
            "contrasts_of",
            "surrogates_of",
        ),
        "written": ("as_yaml",),
    },
)
