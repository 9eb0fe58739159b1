"""The command line: every command of `witness`, its flags and their help."""

import argparse
import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipelines.cli import commands
from pipelines.cli.catalogue import LISTS, list_command
from pipelines.cli.starter import init_command

Command = Callable[[argparse.Namespace], int]


def command_line() -> argparse.ArgumentParser:
    """The parser of the whole command line. Parsed options have a `command`, which is called with them."""
    parser = _Parser(
        prog="witness",
        description="Aligns a source model to a witness, crafts adversarial examples on it, and measures how much "
        "better they transfer to models that the attacker cannot see.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    common = _common_flags(
        "use this value instead of the experiment file's (repeatable)",
        "a Ray cluster; by default $RAY_ADDRESS, else a local one for this command",
        "output folder, or s3://..., gs://..., instead of the experiment file's",
    )
    of_schedule = _common_flags(
        "use this value instead of the schedule file's (repeatable)",
        "a cluster's job server (http://...) instead of those of all entries",
        "output folder, or s3://..., gs://..., instead of those of all experiments",
    )

    def add(
        name: str, help_text: str, command: Command, experiment: bool = True, flags: _Parser = common
    ) -> argparse.ArgumentParser:
        new = added.add_parser(name, help=help_text, description=_sentence(help_text), parents=[flags])
        new.set_defaults(command=command, stage=name)
        if experiment:
            new.add_argument("experiment", type=Path, metavar="EXPERIMENT.yaml", help="the experiment file")
        return new

    def add_plain(name: str, help_text: str, command: Command) -> argparse.ArgumentParser:
        new = added.add_parser(name, help=help_text, description=_sentence(help_text))
        new.set_defaults(command=command)
        return new

    _add_dashboard(add("demo", "run the embedded experiment on handwritten digits, which takes about two minutes",
                       commands.demo_command, experiment=False))  # fmt: skip
    _add_init(add_plain("init", "write a commented starter experiment, from flags or from your answers", init_command))
    _add_list(add_plain("list", "list what an experiment file can name, and the experiments that ship", list_command))

    def add_computing(name: str, help_text: str, command: Command) -> argparse.ArgumentParser:
        computing = add(name, help_text, command)
        _add_rehash(computing)
        _add_dashboard(computing)
        return computing

    def add_stage(name: str, help_text: str) -> argparse.ArgumentParser:
        return add_computing(name, help_text, commands.run_command)

    add_stage("run", "align, craft, evaluate, measure reasons and report, as far as the results are missing")
    add_stage("align", "train and align the networks that are missing")
    add_stage("craft", "craft the adversarial images that are missing")
    evaluate = add_stage("evaluate", "evaluate the cells (surrogate, attack and target) that are missing")
    evaluate.set_defaults(command=commands.evaluate_command)
    evaluate.add_argument(
        "--clean", action="store_true",
        help="measure only the clean accuracy of models and surrogates whose weights exist; trains and crafts nothing",
    )  # fmt: skip
    add_stage("reasons", "measure what may explain the gains, as far as it is missing")
    report = add_stage("report", "write tables, figures and the page from the results that are there")
    report.add_argument("--log", action="store_true", help="log to MLflow again what was logged before")
    _add_tune(add_computing("tune", "search a surrogate's settings on validation images; resumes a search that was "
                            "stopped", commands.tune_command))  # fmt: skip
    _add_plan(add("plan", "say what a run would do, how long it would take, and which files it would leave; computes "
                   "nothing", commands.plan_command))  # fmt: skip
    _add_status(add("status", "count what is missing, partial, done or failed, by stage and surrogate",
                    commands.status_command))  # fmt: skip
    _add_verify(add("verify", "check a finished experiment: hashes, counts, eps-balls and a sample of predictions",
                    commands.verify_command))  # fmt: skip
    _add_export(add("export", "write finished adversarial images, or the clean test images, for other tools, and check "
                    "what was written", commands.export_command))  # fmt: skip
    _add_schedule(add("schedule", "submit recurring evaluations, each as a job on a Ray cluster",
                      commands.schedule_command, experiment=False, flags=of_schedule))  # fmt: skip
    _add_compare(add_plain("compare", "show finished experiments side by side, and say which settings differ",
                           commands.compare_command))  # fmt: skip
    ui = add("ui", "serve MLflow's page on this experiment's tracking store", commands.ui_command)
    ui.add_argument("--port", type=_port, default=5000, help="port of the page on this machine (default: 5000)")
    return parser


class _Parser(argparse.ArgumentParser):
    """A parser that refuses a flag with a value that is given twice; argparse takes the last, without a word."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("action", None, _Once)


class _Once(argparse.Action):
    """Keeps the value of a flag or an argument."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = vars(namespace).setdefault("given", set())
        if option_string is not None and self.dest in given:
            parser.error(f"{option_string} is given twice; give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class _EachKeyOnce(argparse.Action):
    """Keeps every `--set KEY=VALUE`, and refuses a key that is given twice."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        key, before = str(values).partition("=")[0], getattr(namespace, self.dest)
        if any(other.partition("=")[0] == key for other in before):
            parser.error(f"--set {key}: is given twice; give it once")
        setattr(namespace, self.dest, [*before, values])


class _Version(argparse.Action):
    """Prints the version. The package's metadata is only read when it is asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        from importlib.metadata import version

        print(f"witness {version('witness')}")
        parser.exit()


def _sentence(help_text: str) -> str:
    return f"{help_text[0].upper()}{help_text[1:]}."


def _common_flags(set_help: str, address_help: str, output_help: str) -> _Parser:
    common = _Parser(add_help=False)
    common.add_argument(
        "--set", metavar="KEY.PATH=VALUE", action=_EachKeyOnce, default=[], dest="overrides",
        help=set_help,
    )  # fmt: skip
    common.add_argument("--address", help=address_help)
    common.add_argument("--output", help=output_help)
    common.add_argument("--quiet", action="store_true", help="print progress as plain lines, also on a terminal")
    common.add_argument("--json", action="store_true", help="print the result as one JSON object on standard output")
    return common


def _add_dashboard(computing: argparse.ArgumentParser) -> None:
    computing.add_argument(
        "--dashboard", action="store_true", help="show Ray's dashboard while the command runs, and print its address"
    )


def _add_init(init: argparse.ArgumentParser) -> None:
    init.epilog = (
        "MODEL names a model of timm. NAME alone is trained on the training images; NAME=pretrained has the weights "
        "that timm publishes, and NAME=PATH those of a file. On a terminal, the command asks for what is needed and "
        "not given."
    )
    init.add_argument(
        "file", type=Path, nargs="?", default=Path("experiment.yaml"), metavar="EXPERIMENT.yaml",
        help="the file to write, which must not exist yet (default: experiment.yaml)",
    )  # fmt: skip
    init.add_argument(
        "--train", metavar="PATH",
        help="training images: a folder with a sub-folder per class, one of image files and a single CSV file that "
        "lists their labels, a Parquet file or a folder of them, or an npz file",
    )  # fmt: skip
    init.add_argument("--test", metavar="PATH", help="test images, none of them among the training images")
    init.add_argument(
        "--kind", choices=("folder", "npz", "parquet"), help="kind of both sets; by default, each path shows it"
    )
    init.add_argument("--classes", type=int, metavar="N", help="number of classes; by default, those of the images")
    init.add_argument(
        "--image-size", type=int, metavar="N",
        help="side of the images in pixels; by default 32 if the first image has at most 64, otherwise 224",
    )  # fmt: skip
    init.add_argument("--source", metavar="MODEL", help="the model that is aligned")
    init.add_argument(
        "--witness",
        metavar="MODEL",
        action="append",
        default=[],
        help="a model that the source is aligned to (repeatable)",
    )
    init.add_argument("--target", metavar="MODEL", action="append", default=[], help="an attacked model (repeatable)")
    init.add_argument("--name", help="name of the experiment; by default, that of the file")


def _add_list(listing: argparse.ArgumentParser) -> None:
    listing.add_argument(
        "what", nargs="?", default="", type=_list_name, metavar="WHAT", help=f"one of {', '.join(LISTS)}"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON list, with an object per entry")


def _list_name(name: str) -> str:
    if name in LISTS:
        return name
    if not name:
        raise argparse.ArgumentTypeError(f"say of what: {', '.join(LISTS)}")
    close = difflib.get_close_matches(name, LISTS, n=1, cutoff=0.4)
    mend = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(LISTS)}"
    raise argparse.ArgumentTypeError(f"there is no list of {name!r}; {mend}")


def _add_compare(comparing: argparse.ArgumentParser) -> None:
    comparing.add_argument(
        "experiments", nargs="+", metavar="EXPERIMENT",
        help="experiment files, or output folders <output>/<name>, of finished experiments",
    )  # fmt: skip
    comparing.add_argument(
        "--output", default="comparison", metavar="FOLDER",
        help="the folder for comparison.html and comparison.csv (default: comparison)",
    )  # fmt: skip
    comparing.add_argument("--json", action="store_true", help="print one JSON object: files, differences and remarks")


def _add_tune(tune: argparse.ArgumentParser) -> None:
    # Names are checked where the experiment is known, so that the message can say which one was probably meant.
    tune.add_argument("--space", required=True, help="a search space: a name in tune_spaces, or a YAML file")
    tune.add_argument(
        "--samples", type=int, metavar="N", help="how many settings are tried; required unless the searcher is grid"
    )
    tune.add_argument("--searcher", default="random", help="random (the default), optuna or grid")
    tune.add_argument("--scheduler", default="none", help="none (the default), or asha, which stops bad trials early")
    tune.add_argument(
        "--concurrent",
        type=int,
        metavar="K",
        help="how many trials run at once; by default as many as compute.workers allows and the cluster holds",
    )
    tune.add_argument(
        "--max-clean-drop", type=float, default=1.0, metavar="POINTS",
        help="how many points of clean accuracy the chosen settings may cost (default: 1.0)",
    )  # fmt: skip
    tune.add_argument(
        "--surrogate", default="aligned", metavar="NAME",
        help="the surrogate whose settings are searched, of those that are fine-tuned (default: aligned)",
    )  # fmt: skip
    tune.add_argument("--attack", help="the attack on the validation images; by default the experiment's first")


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.add_argument("--cells", action="store_true", help="list every network, and every surrogate and attack")


def _add_status(status: argparse.ArgumentParser) -> None:
    status.add_argument("--cells", action="store_true", help="list every network and table, with its state")
    status.add_argument(
        "--watch",
        action="store_true",
        help="print the progress of a run elsewhere, until everything is done or has failed",
    )


def _port(text: str) -> int:
    """A port of this machine."""
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 1 to 65535")
    return int(text)


def _seed(text: str) -> int:
    """A seed of numpy's, from 0."""
    if not re.fullmatch(r"\d{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _add_verify(verify: argparse.ArgumentParser) -> None:
    verify.add_argument(
        "--sample", type=int, default=20, metavar="N", help="images of each set that are predicted again (default: 20)"
    )
    verify.add_argument("--seed", type=_seed, default=0, help="seed with which these images are drawn (default: 0)")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.epilog = (
        "A path that ends in the suffix of the form is one file, for the images of one surrogate and attack or the "
        "clean ones; any other is a folder, which gets SURROGATE/ATTACK with that suffix for each, or `clean`. "
        "s3://... and gs://... are paths, too. Nothing that is there already is replaced."
    )
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument("--png", metavar="FOLDER", help="lossless PNG files, and labels.csv as TransferAttack has it")
    form.add_argument("--npz", metavar="PATH", help="npz files, which an image set of kind npz reads (.npz)")
    form.add_argument("--robustbench", metavar="PATH", help="float tensors as RobustBench takes them (.pt or .pth)")
    form.add_argument("--parquet", metavar="PATH", help="Parquet files of images for Hugging Face datasets (.parquet)")
    for kind in ("surrogate", "attack"):
        export.add_argument(
            f"--{kind}", metavar="NAME", action="append", default=[],
            help=f"{kind} whose images are exported (repeatable; default: all)",
        )  # fmt: skip
    export.add_argument(
        "--clean", action="store_true",
        help="export the test images as models get them, before any attack: resized, cropped, of 8 bits, with ids and "
        "labels, so that other programs can attack them; no result and no model has to be there",
    )  # fmt: skip
    _add_rehash(export)


def _add_rehash(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rehash", action="store_true",
        help="read every image again, even from files whose path, size and modification time are unchanged",
    )  # fmt: skip


def _add_schedule(schedule: argparse.ArgumentParser) -> None:
    schedule.description = (
        "Submit the entries of a schedule when they are due, each as a job on a Ray cluster, until Ctrl-C."
    )
    schedule.add_argument("schedule", type=Path, metavar="SCHEDULE.yaml", help="the schedule file")
    how = schedule.add_mutually_exclusive_group()
    how.add_argument("--once", action="store_true", help="submit only what is due now, and wait until it has ended")
    how.add_argument(
        "--list", action="store_true", help="print the next and last run of each entry; contacts no cluster"
    )
