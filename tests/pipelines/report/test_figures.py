"""The data of every figure, and that figures are drawn whatever an experiment holds."""

import io
import re

import numpy as np
import pytest
from hand_made import CURVE
from matplotlib.figure import Figure
from PIL import Image

from pipelines.report.curves import curve_figures, training_curves
from pipelines.report.drawing import as_png, as_svg, within_page
from pipelines.report.drawn import draw_figures
from pipelines.report.figures import gain_figures, transfer_heatmaps
from pipelines.report.page import computed_report, make_report
from pipelines.report.relations import gains_by_kind, relation_figures
from pipelines.report.temperatures import gains_by_temperature, temperature_figures


def assert_is_picture(content: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert picture.format == "PNG"
        assert len(colours) > 10  # the figure is not empty
        return picture.size


def lines_of(figure: Figure) -> list[list[tuple[float, float]]]:
    """The points of everything in the panels of a figure that has intervals."""
    drawn = [own.lines[0] for panel in figure.axes for own in panel.containers]
    return [list(zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True)) for line in drawn]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attacks": {"pgd": {"method": "pgd", "eps": "4/255", "step": "1/255", "steps": 4}}, "targets": ["twin"]},
        {"controls": []},
        {"attacks": {f"an-attack-with-a-long-name-{n}": {"method": "fgsm", "eps": "4/255"} for n in range(7)}},
        {"variants": {f"variant{n}": {"align": {"temperature": n + 5}} for n in range(12)}},
    ],
    ids=["plain", "one-attack-one-target", "no-controls", "many-attacks", "many-surrogates"],
)
def test_figures_are_drawn_whatever_the_experiment_holds(experiment, changes):
    experiment.write(**changes)
    blueprint = experiment.finish()
    figures = draw_figures(blueprint, computed_report(blueprint))
    assert {"gain", "transfer", "pareto", "curves"} <= figures.keys()
    assert ("relations" in figures) == ("targets" not in changes)
    assert ("temperature" in figures) == ("variants" in changes)
    for figure in figures.values():
        assert max(assert_is_picture(as_png(figure))) < 4000  # pixels, so that the whole figure fits on a screen


def test_figures_are_drawn_even_if_no_image_counts_for_any_target(experiment):
    make_report(experiment.finish({f"clean/{target}": "1" * 12 for target in ("twin", "cousin", "stranger")}))
    for name in ("gain.png", "transfer.png", "pareto.png"):
        assert_is_picture((experiment.report / name).read_bytes())
    assert not (experiment.report / "relations.png").exists()
    page = (experiment.report / "report.html").read_text()
    assert "no test image" not in page and "0 of 3 targets (none by more)" in page  # of which examples are shown


def test_fifty_targets_with_long_names_and_ten_attacks_are_drawn_in_figures_that_fit(blueprint):
    report = computed_report(blueprint)
    rows = [row for row in report.transfer if row["target"].startswith("(mean") and row["attack"] == "pgd"]
    one = [row for row in report.transfer if row["target"] == "cousin" and row["attack"] == "pgd"]
    rows += [row | {"target": f"a-target-with-a-long-name-{n}"} for row in one for n in range(50)]
    for figure in (*gain_figures(rows, "title"), *transfer_heatmaps(rows, "title")):
        assert max(assert_is_picture(as_png(figure))) < 4000
    many = [row | {"attack": f"attack{n}"} for row in rows for n in range(20)]
    figures = transfer_heatmaps(many, "title")
    assert len(figures) > 1
    shown = [panel.get_title() for figure in figures for panel in figure.axes if panel.get_title()]
    assert shown == [f"attack{n}" for n in range(20)]
    (field,) = (own for own in figures[0].axes[0].collections)
    assert field.get_array().shape == (3, 51)  # surrogates, and targets after their mean


def test_figures_show_the_rows(blueprint):
    transfer = computed_report(blueprint).transfer
    other = [row | {"gain": 5.0} if row["gain"] is not None else row for row in transfer]
    assert as_png(*gain_figures(other, "title")) != as_png(*gain_figures(transfer, "title"))
    (figure,) = gain_figures(transfer, "title")
    drawn = sorted(x for line in lines_of(figure) for x, _ in line)
    assert drawn == sorted(
        row["gain"]
        for row in transfer
        if row["gain"] is not None and row["target"] in ("(mean)", "twin", "cousin", "stranger")
    )
    (heat,) = transfer_heatmaps(transfer, "title")
    rates = {(row["surrogate"], row["target"]): row["rate"] for row in transfer if row["attack"] == "pgd"}
    wanted = [[rates[s, t] for t in ("(mean)", "twin", "cousin", "stranger")] for s in ("source", "aligned", "witness")]
    assert np.allclose(heat.axes[0].collections[0].get_array(), wanted)


def test_gains_by_relation_are_the_means_over_the_targets_of_one(blueprint):
    transfer = computed_report(blueprint).transfer
    gains = gains_by_kind(transfer)
    wanted = {
        (row["surrogate"], row["attack"], row["relation"]): (row["gain"], row["gain_low"], row["gain_high"])
        for row in transfer
        if row["target"].startswith("(mean ") and row["gain"] is not None
    }
    assert {own[:3]: own[3:] for own in gains} == wanted and len(wanted) == 12
    (figure,) = relation_figures(gains, "title")
    assert sorted(x for line in lines_of(figure) for x, _ in line) == sorted(own.gain for own in gains)
    same = [row | {"relation": "cross_family"} for row in transfer if not row["target"].startswith("(mean s")]
    assert gains_by_kind(same) == []  # the mean over all targets says the same


def test_gains_by_temperature_join_what_differs_in_nothing_else(experiment):
    warm = {"align": {"temperature": 16}}
    others = {
        "mse": {"align": {"loss": "mse", "temperature": 16}},
        "longer": {"align": {"epochs": 3, "temperature": 2}},
    }
    experiment.write(variants={"t16": warm, "t2": {"align": {"temperature": 2}}, **others})
    twin = {f"outcomes/t16/pgd/{target}": "111000000000" for target in ("twin", "cousin", "stranger")}
    blueprint = experiment.finish(twin)
    gains = [own for own in gains_by_temperature(blueprint.surrogates, computed_report(blueprint).transfer)]
    assert {own[:4] for own in gains} == {
        ("aligned", name, attack, temperature)
        for name, temperature in (("aligned", 4.0), ("t16", 16.0), ("t2", 2.0))
        for attack in ("pgd", "mi")
    }
    (figure,) = temperature_figures(gains, "title")
    assert lines_of(figure) == [[(2.0, 0.0), (4.0, 0.0), (16.0, 25.0)], [(2.0, 0.0), (4.0, 0.0), (16.0, 0.0)]]
    assert all(panel.yaxis.get_tick_params()["labelleft"] for panel in figure.axes)  # each has a scale of its own


def test_training_curves_are_those_of_the_networks_that_were_made_here(experiment):
    experiment.write(seeds=[3, 4], controls=["label_only"])
    blueprint = experiment.finish()
    curves = training_curves(blueprint)
    losses = [row["loss"] for row in CURVE]
    names = [(panel, f"{panel}~{seed}") for panel in ("aligned", "label_only") for seed in (3, 4)]
    assert [(own.panel, own.name) for own in curves] == names
    assert all((own.steps, own.losses) == ([0, 1, 2, 3], losses) for own in curves)
    (figure,) = curve_figures(curves, "title")
    assert [panel.get_title() for panel in figure.axes] == ["aligned", "label_only"]
    assert [len(panel.lines) for panel in figure.axes] == [2, 2]
    blueprint.store.delete("models/aligned~3/curves.csv")
    assert len(training_curves(blueprint)) == 3


def test_a_title_that_is_longer_than_its_figure_is_whole(blueprint):
    transfer = computed_report(blueprint).transfer
    width, wider = (assert_is_picture(as_png(*gain_figures(transfer, title)))[0] for title in ("title", "title " * 60))
    assert wider > 2 * width


def test_a_long_training_is_shown_as_means_over_equal_parts(experiment, blueprint):
    rows = "".join(f"{step},{step % 2}\n" for step in range(1200))
    blueprint.store.write("models/aligned/curves.csv", f"step,loss\n{rows}".encode())
    (curve,) = training_curves(blueprint)
    assert len(curve.steps) == 60 and curve.losses == [0.5] * 60
    assert curve.steps == [9.5 + 20 * part for part in range(60)]


def test_an_svg_within_the_page_takes_its_colours_and_refers_to_itself_alone(blueprint):
    transfer = computed_report(blueprint).transfer
    svg, again = (as_svg(*gain_figures(transfer, "a $title$ <&>")) for _ in range(2))
    assert svg == again
    element = within_page(svg, "gain")
    ids = re.findall(r' id="([^"]+)"', element)
    assert ids and all(own.startswith("gain-") for own in ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', element)) <= set(ids)
    assert "://" not in element and "#1b1f24" not in element and "var(--ink)" in element
    assert "a $title$ &lt;&amp;&gt;" in element
