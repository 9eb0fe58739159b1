"""The page of a report: it needs nothing but itself, nothing can break it, and it shows whatever there is."""

import base64
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from read_page import ReadPage

from pipelines.report.facts import Facts
from pipelines.report.html_page import SECTIONS, Page, html_page
from pipelines.report.page import computed_report, make_report, read_report
from pipelines.report.sentences import notes, verdicts
from pipelines.report.tabled import Report
from pipelines.stages.clean_images import test_images as images_of

EVIL = '</script><script>alert(1)</script><b onclick="x">&\'{{ 7 * 7 }}</b>'
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def made(reported) -> ReadPage:
    return ReadPage((reported.report / "report.html").read_text())


def test_the_page_needs_no_other_file_and_no_network(made):
    assert made.outside == []
    assert set(made.anchors) <= set(made.ids)
    assert len(made.ids) == len(set(made.ids))
    assert not {"link", "iframe", "object", "embed", "base"} & set(made.tags)
    text = made.source
    for address in made.addresses:
        text = text.replace(address, "")
    assert "://" not in text and "url(//" not in text
    assert "default-src 'none'" in text  # so that a browser would refuse what this test overlooks


def test_the_page_holds_every_figure_that_is_a_file(reported, made):
    figures = [file.stem for file in sorted(reported.report.glob("*.svg"))]
    assert figures == ["curves", "gain", "pareto", "relations", "transfer"]
    assert re.findall(r'<svg role="img" aria-label="([a-z]+)"', made.source) == [
        "gain", "relations", "transfer", "pareto", "curves"
    ]  # fmt: skip
    for figure in figures:
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", (reported.report / f"{figure}.svg").read_text())
        assert texts and set(texts) <= {text.replace("&", "&amp;") for text in made.texts}


def test_the_page_shows_the_verdicts_the_caveats_and_every_row(reported, made):
    report, page = read_report(reported.blueprint().store), made
    assert {*verdicts(report), *notes(report)} <= set(page.texts)
    gain = next(row for row in report.transfer if row["surrogate"] == "aligned" and row["target"] == "twin")
    shown = f"{gain['gain']:+.1f} ({gain['gain_low']:+.1f} to {gain['gain_high']:+.1f})"
    for value in (shown, "same_architecture", "(mean)"):
        assert value in page.texts
    for name, rows in report.tables().items():
        assert not rows or len(page.tables[name]) == 1 + len(rows)
        assert all(len(line) == len(page.tables[name][0]) for line in page.tables.get(name, []))
    assert len(page.tables["summary"]) == 1 + len(report.means())


def test_columns_that_are_blank_throughout_are_left_out(blueprint):
    report = computed_report(blueprint)

    def columns(own: Report) -> list[str]:
        return ReadPage(html_page(Page("x", own))).tables["transfer"][0]

    assert "gain" in columns(report)
    assert not {"gain spread", "targeted rate"} & set(columns(report))  # one seed, no targeted attack
    one_has_it = [row | {"gain_spread": 0.0} for row in report.transfer[:1]] + report.transfer[1:]
    assert "gain spread" in columns(dataclasses.replace(report, transfer=one_has_it))


def test_the_mean_over_one_relation_that_all_targets_have_is_not_printed_twice(experiment):
    report = computed_report(experiment.finish())
    rows = [row | {"relation": "cross_family"} for row in report.transfer if not row["target"].startswith("(mean ")]
    rows += [row | {"target": "(mean cross_family)"} for row in rows if row["target"] == "(mean)"]
    page = ReadPage(html_page(Page("x", dataclasses.replace(report, transfer=rows))))
    targets = [line[2] for line in page.tables["transfer"]]
    assert targets.count("(mean)") == len(report.means())
    assert "(mean cross_family)" not in targets
    assert "gains" not in page.tables


def test_names_cannot_break_the_page(blueprint):
    report = computed_report(blueprint)
    rows = [row | {"surrogate": EVIL, "target": EVIL} for row in report.transfer]
    line = {"model": EVIL, "weights": EVIL}
    facts = Facts(
        warning=EVIL, asked=[(EVIL, EVIL)], models=[line], attacks=[line], refinements=[line],
        versions={"witness": EVIL}, hashes=[(EVIL, EVIL)], settings=EVIL,
    )  # fmt: skip
    report = Report("", rows, [], [], [], [], [])
    page = ReadPage(html_page(Page(EVIL, report, {}, [EVIL], facts)))
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert page.texts.count(EVIL) > 10
    assert page.tables["transfer"][1][:3] == [EVIL, rows[0]["attack"], EVIL]
    assert "49" not in page.texts


def test_hostile_text_of_an_experiment_file_cannot_break_the_page(experiment):
    (experiment.folder / "classes.txt").write_text(f"{EVIL}\nb\nc\n")
    data = experiment.content()["data"] | {"classes": "classes.txt"}
    experiment.write(data=data, warning=EVIL)
    make_report(experiment.finish())
    page = ReadPage((experiment.report / "report.html").read_text())
    assert page.tags.count("script") == 1 and "b" not in page.tags
    assert EVIL in page.texts
    assert any(f"class {EVIL}" in text for text in page.texts)


def test_a_warning_of_the_experiment_file_is_the_first_thing_that_is_said(experiment):
    experiment.write(warning="Chosen by looking.")
    make_report(experiment.finish())
    page = ReadPage((experiment.report / "report.html").read_text())
    said = [text.strip() for text in page.texts if text.strip()]
    assert said[:3] == ["by-hand", "by-hand", "Chosen by looking."]  # title and heading come before it
    experiment.write()
    _, is_new = make_report(experiment.blueprint())
    assert is_new
    assert "Chosen by looking." not in (experiment.report / "report.html").read_text()


def test_what_was_asked_and_how_it_was_run_is_said(reported, made):
    blueprint = reported.blueprint()
    said = " ".join(" ".join(made.texts).split())
    for words in ("source near", "witness seer", "targets twin, cousin, stranger", "l-infinity, 4/255",
                  "test: 12 of images.npz (from 4 to 16)", "loss kl, temperature 4"):  # fmt: skip
        assert words in said
    models = {line[0]: line for line in made.tables["models"]}
    assert models["twin"][1:3] == ["target", "factory hand_made_networks:linear (width=2)"]
    assert models["twin"][3:] == ["narrow", "same architecture", "100.0", blueprint.networks["twin"].digest[:12]]
    assert made.tables["attacks"][1] == [
        "pgd", "pgd", "l-infinity, 4/255", "4 of 1/255", "away from the label", "4", "Madry et al., 1706.06083, 2018"
    ]  # fmt: skip
    assert blueprint.inspected.manifests["test"].digest in made.texts
    assert "{Improving Adversarial Transferability via Model Alignment}" in said and "2311.18495" in said
    assert "author = {{Witness maintainers}}" in said
    assert str(blueprint.experiment.output) not in made.source


def test_every_section_has_a_template_of_its_own_and_is_left_out_where_it_has_nothing():
    assert len({section.template for section in SECTIONS}) == len(SECTIONS)
    empty = Page("x", Report("", [], [], [], [], [], []))
    assert [section.anchor for section in empty.sections] == ["tables"]
    assert "No gain could be measured" in html_page(empty)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_a_browser_shows_the_page_and_the_tables_sort_and_filter(experiment, blueprint, tmp_path):
    """A script that the page does not have presses its buttons, and leaves what it finds in the title."""
    make_report(blueprint)
    page = (experiment.report / "report.html").read_text()
    probe = """<script>
      const errors = []; addEventListener("error", (event) => errors.push(event.message));
      addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));
      addEventListener("load", () => {
        const table = document.querySelector("table[data-name=transfer]");
        const buttons = [...table.querySelectorAll("th button")];
        const column = buttons.findIndex((own) => own.textContent === "gain"), button = buttons[column];
        const shown = () => [...table.tBodies[0].rows].filter((row) => !row.hidden);
        const gains = () => shown().map((row) => row.cells[column].textContent);
        button.click(); const down = gains();
        button.click(); const up = gains();
        const input = table.parentElement.previousElementSibling.querySelector("input");
        input.value = "witness mi twin"; input.dispatchEvent(new Event("input"));
        const images = [...document.images].every((image) => image.naturalWidth > 0);
        const wide = document.documentElement.scrollWidth <= innerWidth;
        document.body.textContent = JSON.stringify({errors, down, up, found: gains().length, images, wide});
      });
    </script>"""
    (tmp_path / "probe.html").write_text(page.replace("<body>", f"<body>{probe}"))
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=420,900",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
               f"file://{tmp_path / 'probe.html'}"]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    found = json.loads(html.unescape(re.search(r"<body>(\{.*\})</body>", shown)[1]))
    assert found["errors"] == [] and found["images"] and found["wide"]
    assert found["found"] == 1
    down, up = ([float(gain.split()[0]) for gain in found[way] if gain] for way in ("down", "up"))
    assert down == sorted(down, reverse=True) and up == sorted(up) and len(set(up)) > 2
    assert found["down"][-1] == found["up"][-1] == ""  # what is blank comes last, either way


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None or shutil.which("pdftotext") is None, reason="no chromium or pdftotext here")
def test_print_keeps_every_row_and_column(experiment, outcomes, tmp_path):
    experiment.write(variants={f"t{n}": {"align": {"temperature": n}} for n in range(5, 25)})
    make_report(experiment.finish(outcomes))
    command = [str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
               f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={tmp_path / 'page.pdf'}",
               f"file://{experiment.report / 'report.html'}".replace(" ", "%20")]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=100, check=True)
    command = ["pdftotext", "-layout", str(tmp_path / "page.pdf"), "-"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    page = ReadPage((experiment.report / "report.html").read_text())
    for name in ("transfer", "contrasts", "summary"):
        head, *rows = page.tables[name]
        assert len(rows) > 100 or name == "summary"
        printed = [" ".join(" ".join(row).split()) for row in rows]
        assert [row for row in printed if row not in lines] == []
        assert " ".join(head) in lines
    assert lines.count(" ".join(page.tables["transfer"][0])) > 2  # on every page of the table


def test_the_pictures_are_what_they_are_called(experiment, outcomes):
    """The first images by id that all classify correctly, as they lie in the tables."""
    blueprint = experiment.finish(outcomes | {"adversarial/aligned/pgd": "012340000000"})
    make_report(blueprint)
    page = ReadPage((experiment.report / "report.html").read_text())
    addresses = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    assert len(addresses) == 5 * 5  # five images: clean, and perturbation and adversarial for source and aligned
    pictures = []
    for address in addresses:
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as picture:
            assert picture.size == (8, 8)
            pictures.append(np.array(picture))
    images = images_of(blueprint).read(0)
    for row in range(5):
        clean, _, on_source, perturbation, on_aligned = pictures[5 * row : 5 * row + 5]
        assert np.array_equal(clean, images[row, 0]) and np.array_equal(on_source, clean)
        assert np.array_equal(on_aligned, np.minimum(clean.astype(int) + row, 255))
        assert np.array_equal(perturbation, 128 + 31 * (on_aligned.astype(int) - clean))  # 4 steps at most: 127 // 4
