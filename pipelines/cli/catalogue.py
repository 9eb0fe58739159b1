"""`witness list`: the names that an experiment or a sweep can use, each with what it means.

An entry has at least a `name` and a `what`. Nothing here needs torch, so the lists are printed at once.
"""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_ANY_EPS = 8 / 255  # a preset's parts and cost do not depend on it

Entry = dict[str, Any]
"""What `--json` prints of one entry: `name`, `what`, and what a list adds (settings, keys, or a path)."""

CONTROLS: Mapping[str, str] = {
    "label_only": "the source after the same fine-tuning on labels, without a witness: is it the additional training?",
    "witness": "crafting on each witness itself: is the witness simply the better surrogate?",
    "ensemble": "crafting on the mean of the logits of source and witnesses: is it better to attack both at once?",
    "aligned_ensemble": "the same with the aligned model instead of the source: does alignment add to the ensemble?",
}
"""What each control in `controls` is, and the question that it answers."""


def attacks() -> list[Entry]:
    """The methods of `attacks`: paper, cost, and where each differs from plain iterated gradient signs."""
    from align_core.attacks import PRESETS, AttackConfig

    found = []
    for name, preset in PRESETS.items():
        attack = AttackConfig(method=name, eps=_ANY_EPS)
        found.append(
            {
                "name": name,
                "what": preset.what,
                "paper": preset.paper,
                "year": preset.year,
                "gradients": attack.gradients,
                "steps": attack.steps,
                "step_in_eps": attack.step / attack.eps,
                "settings": dict(preset.settings),
            }
        )
    return found


def losses() -> list[Entry]:
    """The alignment losses, for `align.loss`."""
    from align_core.losses import LOSSES

    return [{"name": name, "what": loss.what} for name, loss in LOSSES.items()]


def refinements() -> list[Entry]:
    """The ways to make a surrogate from a source, for `variants.*.refine`."""
    from align_core.refinements import REFINEMENTS

    return [
        {
            "name": name,
            "what": own.what,
            "paper": own.paper,
            "year": own.year,
            "note": own.note,
            "settings": dict(own.settings),
        }
        for name, own in REFINEMENTS.items()
    ]


def spaces() -> list[Entry]:
    """The search spaces that ship with Witness, for `witness tune --space`, each with the keys that it searches."""
    import tune_spaces
    from pipelines.experiment.yaml_file import read_yaml

    files = sorted(Path(tune_spaces.__file__).parent.glob("*.yaml"))
    contents = {file.stem: read_yaml(file) for file in files}
    return [
        {"name": name, "what": " ".join(content["why"].split()), "keys": content["keys"]}
        for name, content in contents.items()
    ]


def controls() -> list[Entry]:
    """The controls beside which a gain is reported."""
    return [{"name": name, "what": what} for name, what in CONTROLS.items()]


def experiments() -> list[Entry]:
    """The experiments that ship with Witness, with the paths under which other commands find them."""
    from pipelines.cli.commands import RECIPES
    from pipelines.experiment.yaml_file import read_yaml

    found = []
    for file in sorted(RECIPES.glob("*.yaml")):
        content = read_yaml(file)
        if "models" in content:  # a schedule lies there too
            found.append({"name": content["name"], "what": _opening_comment(file), "path": str(file)})
    return found


def deployments() -> list[Entry]:
    """The files for containers and clusters that ship with Witness, with their paths."""
    folder = Path(__file__).parents[1] / "deploy"
    files = [folder / "Dockerfile", *sorted(folder.glob("*.yaml"))]
    return [{"name": file.name, "what": _opening_comment(file), "path": str(file)} for file in files]


LISTS: Mapping[str, Callable[[], list[Entry]]] = {
    "attacks": attacks,
    "losses": losses,
    "refinements": refinements,
    "spaces": spaces,
    "controls": controls,
    "experiments": experiments,
    "deployments": deployments,
}
"""What `witness list` can list."""


def list_command(options: argparse.Namespace) -> int:
    """Prints the list that was asked for: a line per entry, or with `--json` one list with an object per entry."""
    entries = LISTS[options.what]()
    if options.json:
        print(json.dumps(entries))
    else:
        print(*_lines(entries), sep="\n")
    return 0


def _lines(entries: list[Entry]) -> list[str]:
    """A line per entry; on a terminal, long ones are wrapped below each other."""
    width = max(len(entry["name"]) for entry in entries) + 2
    lines = []
    for entry in entries:
        line = f"{entry['name']:{width}}{entry['what']}{_more(entry)}"
        if sys.stdout.isatty():
            line = textwrap.fill(line, shutil.get_terminal_size().columns, subsequent_indent=" " * width)
        lines.append(line)
    return lines


def _more(entry: Entry) -> str:
    """What an entry has besides its name and meaning, for its line."""
    if "keys" in entry:
        return f" [{', '.join(entry['keys'])}]"
    if "note" in entry:
        about = f" ({entry['paper']}, {entry['year']})" + (f"; {entry['note']}" if entry["note"] else "")
        return f"{about} [{_settings_text(entry['settings'])}]" if entry["settings"] else about
    if "gradients" in entry:
        plural = "s" if entry["gradients"] > 1 else ""
        about = f" ({entry['paper']}, {entry['year']}; {entry['gradients']:,} gradient{plural})"
        return f"{about} [{_settings_text(entry['settings'])}]" if entry["settings"] else about
    if "settings" in entry and (settings := _settings_text(entry["settings"])) != entry["what"]:
        return f" [{settings}]"
    return f" [{entry['path']}]" if "path" in entry else ""


def _settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {json.dumps(value)}" for key, value in settings.items())


def _opening_comment(file: Path) -> str:
    """The first paragraph of the comment with which a file begins, in one line."""
    words: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or not line.strip("# "):
            break
        words += line.strip("# ").split()
    return " ".join(words)
