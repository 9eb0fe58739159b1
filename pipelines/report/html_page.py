"""The page of a report: one HTML file that needs no other, and no network.

A new section is a template in `templates`, and an entry in SECTIONS. Templates get the `Page` as `page`; jinja2 escapes
whatever they print.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipelines.report.claims import Claim, claims
from pipelines.report.cost import cost_lines
from pipelines.report.facts import Facts
from pipelines.report.ranking import CAVEAT, ranking
from pipelines.report.reasons_shown import reasons_summary, telling_correlations
from pipelines.report.sentences import notes, verdicts
from pipelines.report.shown import ShownTable, gains_by_relation, shown_tables, summary
from pipelines.report.tabled import Report


@dataclass(frozen=True)
class Page:
    """What the templates show.

    Attributes:
        name: of the experiment, the heading of the page.
        report: its tables.
        figures: SVG elements by the name of the figure; a figure that is continued is `NAME-2` and so on.
        remarks: what has to be known of this experiment before its tables are read, a sentence each.
        facts: what was asked, and how it was run.
    """

    name: str
    report: Report
    figures: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    facts: Facts = field(default_factory=Facts)

    @cached_property
    def verdicts(self) -> list[str]:
        """What the tables show, a sentence each."""
        return verdicts(self.report)

    @cached_property
    def ranking(self) -> list[str]:
        """Which surrogates gain most, a sentence per attack; none where there is one surrogate."""
        return ranking(self.report)

    @cached_property
    def claims(self) -> list[Claim]:
        """What is claimed of alignment, and what was measured of it."""
        return claims(self.report)

    @cached_property
    def reasons(self) -> ShownTable:
        """A row of measures for each surrogate; none where the experiment asks for no reasons."""
        return reasons_summary(self.report)

    @cached_property
    def correlations(self) -> ShownTable:
        """The measures that go with the gain."""
        return telling_correlations(self.report)

    @cached_property
    def notes(self) -> list[str]:
        """What a reader has to know of the tables."""
        return notes(self.report) if self.report.transfer else []

    @cached_property
    def summary(self) -> ShownTable:
        """A row per surrogate and attack."""
        return summary(self.report)

    @cached_property
    def gains(self) -> ShownTable:
        """The gains by the relation of targets to the source, where there are several; otherwise no row."""
        return gains_by_relation(self.report)

    @cached_property
    def tables(self) -> list[ShownTable]:
        """Every table of the report."""
        return shown_tables(self.report)

    @cached_property
    def cost(self) -> list[tuple[str, str]]:
        """What crafting and fine-tuning took."""
        return cost_lines(self.report)

    def figure(self, name: str) -> list[Markup]:
        """The parts of a figure, which `drawing.within_page` made."""
        own = [figure for key, figure in self.figures.items() if key == name or key.startswith(f"{name}-")]
        return [Markup(figure) for figure in own]

    @property
    def sections(self) -> list["Section"]:
        """The sections that have something to show."""
        return [section for section in SECTIONS if section.is_there(self)]


class Section(NamedTuple):
    """A section of the page: its heading, its file in `templates`, and whether a page has anything to show in it."""

    title: str
    template: str
    is_there: Callable[[Page], object]

    @property
    def anchor(self) -> str:
        """The name to which the page's table of contents leads."""
        return self.template.partition(".")[0]


SECTIONS: tuple[Section, ...] = (
    Section("What was asked", "asked.html", lambda page: page.facts.asked),
    Section("Surrogates", "summary.html", lambda page: page.summary.rows),
    Section("The four claims about alignment", "claims.html", lambda page: page.claims),
    Section("Gains by target and relation", "gains.html", lambda page: page.gains.rows or page.figure("gain")),
    Section("Transfer rates", "transfer.html", lambda page: page.figure("transfer")),
    Section("Rate against cost", "pareto.html", lambda page: page.figure("pareto")),
    Section("Reasons", "reasons.html", lambda page: page.reasons.rows),
    Section("Temperature", "temperature.html", lambda page: page.figure("temperature") or page.figure("softness")),
    Section("Training curves", "curves.html", lambda page: page.figure("curves")),
    Section("Example images", "examples.html", lambda page: page.facts.examples or page.facts.no_examples),
    Section("Tables", "tables.html", lambda page: page.tables),
    Section("How it was run", "run.html", lambda page: page.facts.versions),
    Section("How to reproduce it", "reproduce.html", lambda page: page.facts.settings),
    Section("How to cite it", "cite.html", lambda page: page.facts.versions),
)
"""The sections of the page, in their order."""


def html_page(page: Page) -> str:
    """The report as one HTML page with its figures embedded, so that the file can be mailed or archived by itself."""
    return templates().get_template("page.html").render(page=page, caveat=CAVEAT) + "\n"


@cache
def templates() -> Environment:
    """The templates of this room. Whatever they print is escaped, and a name that they do not get is an error."""
    return Environment(
        loader=PackageLoader("pipelines.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
