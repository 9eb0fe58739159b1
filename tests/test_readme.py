"""What the READMEs say works as it stands there: commands, experiment files, and Python.

The Python of align_core/README.md is run by tests/align_core/test_science_readme.py, and the space of
tune_spaces/README.md is looked at by tests/tune_spaces.
"""

import argparse
import dataclasses
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pipelines.cli.parser import command_line

REPOSITORY = Path(__file__).parent.parent
READMES = ["README.md", "pipelines/README.md", "align_core/README.md", "tune_spaces/README.md"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a README."""

    readme: str
    language: str
    text: str

    def lines(self) -> list[str]:
        """The commands: a line that ends with a backslash goes on in the next."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


BLOCKS = [
    Block(readme, language, text)
    for readme in READMES
    for language, text in re.findall(
        r"^```(\w*)\n(.*?)^```", (REPOSITORY / readme).read_text(), flags=re.MULTILINE | re.DOTALL
    )
]
CONSOLE = [
    shlex.split(line, comments=True) for block in BLOCKS if block.language == "console" for line in block.lines()
]
SHELL = [shlex.split(line, comments=True) for block in BLOCKS if block.language == "sh" for line in block.lines()]
SCRIPTS = [
    command
    for block in BLOCKS
    if block.language in ("", "ini")
    for command in re.findall(r"/bin/(witness [^>\n]*)", block.text)
]


def witness_commands(lines: list[list[str]]) -> list[list[str]]:
    """The arguments of every `witness` command, also of one that is submitted as a job."""
    found = [line[line.index("witness") + 1 :] for line in lines if "witness" in line]
    assert found
    return found


def test_the_front_page_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 150


def anchors_of(file: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("readme", [*READMES, "pipelines/FINGERPRINTS.md", "align_core/ATTACKS.md"])
def test_every_link_leads_somewhere(readme: str) -> None:
    """Also to a heading of another file."""
    file = REPOSITORY / readme
    for target in re.findall(r"\]\(([^)]+)\)", file.read_text().replace("\n", " ")):
        path, _, anchor = target.partition("#")
        linked = file.parent / path if path else file
        assert linked.exists(), target
        assert not anchor or anchor in anchors_of(linked), target


def test_the_reference_links_to_each_of_its_sections() -> None:
    text = (REPOSITORY / "pipelines/README.md").read_text()
    contents = text.partition("## Experiment file")[0]
    sections = {
        re.sub(r"[^a-z0-9_ -]", "", name.lower()).replace(" ", "-") for name in re.findall(r"^## (.*)$", text, re.M)
    }
    assert sections <= set(re.findall(r"\]\(#([^)]+)\)", contents))


def test_the_reference_lists_every_part_of_an_attack_with_its_defaults() -> None:
    from align_core.attacks.parts import OBJECTIVES, RULES, VIEWS, Objective, Rule, View

    section = (REPOSITORY / "pipelines/README.md").read_text().split("### Views, samples and objectives")[1]
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", section.partition("### ")[0], flags=re.MULTILINE)
    listed = [(name, yaml.safe_load(f"{{{settings.replace('`', '')}}}"), what) for name, settings, what in rows]
    known: list[tuple[str, dict[str, int], View | Rule | Objective]]
    known = [(name, {"copies": view.copies}, view) for name, view in VIEWS.items()]
    known += [(name, {"count": rule.count}, rule) for name, rule in RULES.items()]
    known += [(name, {}, objective) for name, objective in OBJECTIVES.items()]
    assert [(name, what) for name, _, what in listed] == [(name, part.what) for name, _, part in known]
    for (name, settings, _), (_, first, part) in zip(listed, known, strict=True):
        defaults = first | {key: bound.default for key, bound in part.settings.items()}
        assert settings == pytest.approx(defaults, rel=1e-3), name


def test_the_reference_names_every_flag() -> None:
    """But for those of `witness init`, which its own help explains."""
    (commands,) = (a.choices for a in command_line()._actions if isinstance(a, argparse._SubParsersAction))
    parsers = [parser for name, parser in commands.items() if name != "init"]
    options = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    flags = sorted(option for option in options if option.startswith("--"))
    text = (REPOSITORY / "pipelines/README.md").read_text()
    assert len(flags) > 20
    assert [flag for flag in flags if not re.search(rf"{flag}\b", text)] == []


def test_the_reference_names_every_key_below_the_top() -> None:
    from align_core.align_config import AugmentConfig, OptimizerConfig
    from align_core.attacks import AttackConfig, ForeignConfig
    from align_core.defences import DEFENCES
    from align_core.images import ImageSetConfig
    from align_core.model_config import ModelConfig, TrainConfig
    from pipelines.experiment.config import StageConfig, VariantConfig
    from pipelines.experiment.reasons_config import ReasonsConfig
    from pipelines.experiment.section import Section
    from pipelines.schedule.file import EntryConfig, ScheduleConfig

    sections: list[type[Section]] = [StageConfig, VariantConfig, ReasonsConfig, EntryConfig, ScheduleConfig]
    keys = {key for section in sections for key in section.model_fields}
    settings = [AugmentConfig, OptimizerConfig, AttackConfig, ForeignConfig, ImageSetConfig, ModelConfig, TrainConfig]
    keys |= {entry.name for one in settings for entry in dataclasses.fields(one)}
    keys |= {key for name, defence in DEFENCES.items() for key in (name, *defence.settings)}
    text = (REPOSITORY / "pipelines/README.md").read_text()
    assert [key for key in sorted(keys) if not re.search(rf"[`{{\s]{key}[:`]", text)] == []


@pytest.mark.parametrize(
    "table", ["transfer", "contrasts", "surrogates", "robustness", "reasons", "correlations", "soft_labels"]
)
def test_every_column_of_a_table_is_explained(table: str) -> None:
    from pipelines.report.rows import COLUMNS

    section = (REPOSITORY / "align_core/README.md").read_text().split(f"### {table}.csv")[1]
    first_cells = re.findall(r"^\|([^|]*)\|", re.split(r"^#", section, flags=re.MULTILINE)[0], flags=re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", "".join(first_cells))) == sorted(COLUMNS[table])


def test_every_make_command_is_a_target() -> None:
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    named = [command[1] for command in CONSOLE if command[0] == "make"]
    assert named
    assert set(named) <= set(targets)


def test_every_command_is_known() -> None:
    assert {command[0] for command in CONSOLE} <= {"make", "witness", "."}


@pytest.mark.parametrize("arguments", witness_commands(CONSOLE), ids=" ".join)
def test_a_command_is_parsed(arguments: list[str]) -> None:
    assert_parsed(arguments)


@pytest.mark.parametrize("arguments", witness_commands([*SHELL, *map(shlex.split, SCRIPTS)]), ids=" ".join)
def test_a_command_that_needs_a_cluster_or_files_is_parsed(arguments: list[str]) -> None:
    assert_parsed(arguments)


def assert_parsed(arguments: list[str]) -> None:
    if arguments[-1] in ("--help", "--version"):
        with pytest.raises(SystemExit) as ended:
            command_line().parse_args(arguments)
        assert ended.value.code == 0
    else:
        command_line().parse_args(arguments)


@pytest.mark.parametrize("arguments", [line[1:] for line in SHELL if line and line[0] == "ray"], ids=" ".join)
def test_a_command_of_ray_is_parsed_by_ray(arguments: list[str]) -> None:
    import click
    from ray.scripts.scripts import cli

    command: click.Command = cli
    arguments = [argument for argument in arguments if argument != "&"]
    while isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    with command.make_context(command.name, arguments) as context:
        assert context.params


@pytest.mark.slow
def test_the_commands_run_in_the_order_of_the_readmes(tmp_path: Path) -> None:
    """The page of MLflow, which stays until Ctrl-C, is tested elsewhere."""
    commands = [arguments for arguments in witness_commands(CONSOLE) if arguments[0] != "ui"]
    assert len(commands) >= 10
    for command in commands:
        paths = [str(REPOSITORY / part) if part.startswith("pipelines/") else part for part in command]
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *paths], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (tmp_path / "runs" / "demo" / "report" / "report.html").is_file()


def yaml_blocks(key: str) -> list[str]:
    """The YAML blocks whose content has this key at the top."""
    found = [block.text for block in BLOCKS if block.language == "yaml" and key in yaml.safe_load(block.text)]
    assert found, key
    return found


def test_every_yaml_block_is_one_that_a_test_looks_at() -> None:
    keys = ("models", "keys", "entries")
    found = [block for key in keys for block in yaml_blocks(key)]
    found += [*parts_of_an_experiment(), *image_sets_alone(), *attacks_alone()]
    assert sorted(found) == sorted(block.text for block in BLOCKS if block.language == "yaml")


def parts_of_an_experiment() -> list[str]:
    """The YAML blocks that show a part of an experiment file."""
    return [text for text in yaml_blocks("variants") if "models" not in yaml.safe_load(text)]


def image_sets_alone() -> list[str]:
    """The YAML blocks that show image sets, and nothing else of an experiment file."""
    return [text for text in yaml_blocks("data") if "models" not in yaml.safe_load(text)]


def attacks_alone() -> list[str]:
    """The YAML blocks that show attacks, and nothing else of an experiment file."""
    return [text for text in yaml_blocks("attacks") if "models" not in yaml.safe_load(text)]


@pytest.mark.parametrize("text", attacks_alone())
def test_attacks_are_valid_within_an_experiment(text: str, tmp_path: Path) -> None:
    from pipelines.experiment.config import load_experiment

    whole, part = yaml.safe_load(yaml_blocks("models")[1]), yaml.safe_load(text)
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(whole | part))
    loaded = load_experiment(tmp_path / "experiment.yaml")
    assert loaded.attacks.keys() | loaded.made_elsewhere.keys() == part["attacks"].keys()
    assert loaded.made_elsewhere["theirs"].compare_with in loaded.attacks


@pytest.mark.parametrize("text", image_sets_alone())
def test_image_sets_are_valid_within_an_experiment(text: str, tmp_path: Path) -> None:
    from pipelines.experiment.config import load_experiment

    whole, part = yaml.safe_load(yaml_blocks("models")[1]), yaml.safe_load(text)
    whole["data"] |= part["data"]
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(whole))
    loaded = load_experiment(tmp_path / "experiment.yaml").image_sets()
    for role, settings in part["data"].items():
        named = {key: value for key, value in settings.items() if key not in ("path", "labels")}
        assert {key: getattr(loaded[role], key) for key in named} == named


@pytest.mark.parametrize("text", parts_of_an_experiment())
def test_a_part_of_an_experiment_is_valid_within_a_whole_one(text: str, tmp_path: Path) -> None:
    from pipelines.experiment.config import load_experiment

    part = yaml.safe_load(text)
    whole = yaml.safe_load(yaml_blocks("models")[1]) | {"contrasts": []} | part
    if "seeds" in part:
        del whole["seed"]
    for own in part["variants"].values():
        if "model" in own:
            whole["models"].setdefault(own["model"], {"aligned": "runs/other/models/aligned"})
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(whole))
    loaded = load_experiment(tmp_path / "experiment.yaml")
    per_epoch = 2 if "align" in part["variants"]["lgv"] else 4
    assert loaded.variant_align("lgv").keep == {"name": "collect", "per_epoch": per_epoch}
    if "flat" in part["variants"]:
        assert loaded.variant_align("flat").update == {"name": "sam", "rho": 0.1}
        assert loaded.variant_align("flat").epochs == loaded.align.epochs


@pytest.mark.parametrize(
    ("text", "temperature"), list(zip(yaml_blocks("models"), (16, 4), strict=True)), ids=["first", "whole"]
)
def test_an_experiment_of_the_readmes_is_valid(text: str, temperature: float, tmp_path: Path) -> None:
    """Checked without data: every key is known, every value of its type, every role a model's."""
    from pipelines.experiment.config import load_experiment

    (tmp_path / "experiment.yaml").write_text(text)
    loaded = load_experiment(tmp_path / "experiment.yaml")
    assert loaded.align.temperature == temperature
    assert "t16" not in loaded.variants or loaded.variant_align("t16").temperature == 16


def test_the_whole_experiment_names_every_key(tmp_path: Path) -> None:
    """The reference leaves out no key at the top, in `data`, `align` or `compute`."""
    from align_core.align_config import AlignConfig
    from pipelines.experiment.config import Experiment
    from pipelines.experiment.explain import known_keys

    whole = yaml.safe_load(yaml_blocks("models")[1])
    assert set(whole) == set(known_keys(Experiment, ()))
    assert set(whole["data"]) == set(known_keys(Experiment, ("data",)))
    assert set(whole["align"]) == set(known_keys(AlignConfig, ()))
    assert set(whole["compute"]) == set(known_keys(Experiment, ("compute",)))


def test_the_schedule_is_valid(tmp_path: Path) -> None:
    from pipelines.schedule.file import load_schedule

    experiment = yaml_blocks("models")[1]
    (schedule,) = yaml_blocks("entries")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "my-resnets.yaml").write_text(experiment)
    (tmp_path / "wide.yaml").write_text(experiment.replace("name: my-resnets", "name: wide"))
    (tmp_path / "nightly.yaml").write_text(schedule.replace("/shared", str(tmp_path)))
    resnets, wide = load_schedule(tmp_path / "nightly.yaml").entries
    assert (resnets.working_dir, wide.working_dir) == (tmp_path / "experiments", None)
    assert (wide.config.retries, wide.config.catch_up) == (2, False)


def test_the_python_of_the_front_page_runs(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from digits_experiment import make_weights, write_experiment

    from pipelines import load_results

    (code,) = (block.text for block in BLOCKS if block.readme == "README.md" and block.language == "python")
    (tmp_path / "weights").mkdir()
    make_weights(tmp_path / "weights")
    attacks = {"mi": {"method": "mi", "eps": "12/255", "steps": 3}}
    written = write_experiment(tmp_path, tmp_path / "weights", controls=[], variants={}, attacks=attacks)
    (tmp_path / "experiment.yaml").write_text(written.read_text())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["surrogate", "attack", "target", "rate", "gain", "gain_low", "gain_high"]
    changes = [int(line.split()[1]) for line in lines[-3:]]
    results, loaded = names["results"], load_results("experiment.yaml")
    assert 0 < max(changes) <= 12
    assert loaded.transfer.equals(results.transfer)  # type: ignore[attr-defined]
