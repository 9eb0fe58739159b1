"""How the figures of a report look, and how they are written: as PNG, as SVG, and as SVG within the page.

Figures are drawn in a few named colours, which the page replaces by those of its own light or dark theme.
"""

import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

INK, FAINT, SHADE, PAPER, GREY = "#1b1f24", "#d3d8de", "#eef1f5", "#fefefe", "#444444"
"""Text and axes; lines of a grid; the ground of a band; the ground of a figure; and a line that is no text."""
_PURPLE, _RED = "#7B4FA3", "#B2182B"

_ON_PAGE = {INK: "--ink", FAINT: "--faint", SHADE: "--shade", PAPER: "--paper", GREY: "--grey"}
_ON_PAGE |= {_PURPLE.lower(): "--purple", _RED.lower(): "--red"}
"""The variables of the page's style that stand for these colours within it."""

_LOOK: Any = {
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "grid.color": FAINT,
    "axes.facecolor": "none", "figure.facecolor": PAPER, "savefig.facecolor": PAPER,
    "legend.facecolor": PAPER, "legend.edgecolor": FAINT,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",  # text stays text: it can be searched, and is small
    "text.parse_math": False,  # a dollar in a name is a dollar
}  # fmt: skip

# A surrogate looks the same in every report. The colours are those of Okabe and Ito, which colour-blind readers can
# tell apart; the shapes differ as well.
_STYLES = {
    "aligned": ("#0072B2", "o"),
    "label_only": ("#E69F00", "s"),
    "witness": ("#009E73", "D"),
    "ensemble": ("#CC79A7", "^"),
    "aligned_ensemble": ("#56B4E9", "v"),
}
_FURTHER_COLOURS = ("#D55E00", GREY, _PURPLE, "#8C6D1F", _RED)
_FURTHER_SHAPES = ("P", "X", "<", ">", "p", "h", "*")


_MARGIN = 0.1  # inches around a figure
_HOVER = "hover "
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


@contextmanager
def look() -> Iterator[None]:
    """Within it, whatever matplotlib draws looks as a report does."""
    with rc_context(_LOOK):
        yield


def styles_of(surrogates: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and shape of each surrogate: fixed for those that any experiment may have, in turn for its variants."""
    further = zip(cycle(_FURTHER_COLOURS), cycle(_FURTHER_SHAPES), strict=False)
    return {name: _STYLES.get(name) or next(further) for name in surrogates}


def say_nothing(panel: Axes, text: str) -> None:
    """Writes in the middle of a panel why there is nothing in it."""
    panel.text(0.5, 0.5, text, ha="center", va="center", transform=panel.transAxes)


def hover(dots: Line2D, texts: Sequence[str]) -> None:
    """Gives each dot of a line a text, which a browser shows while the pointer is over it; SVG files hold it."""
    dots.set_gid(_HOVER + json.dumps(texts))


def as_png(figure: Figure) -> bytes:
    """Renders a figure as a PNG file, without metadata, so that the same figure is the same bytes."""
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    with look():
        figure.savefig(content, format="png", dpi=130, bbox_inches=_box(figure), metadata={"Software": None})
    return content.getvalue()


def as_svg(figure: Figure) -> bytes:
    """Renders a figure as an SVG file, without metadata, so that the same figure is the same bytes."""
    FigureCanvasSVG(figure)
    content, nothing = io.BytesIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with look(), rc_context({"svg.hashsalt": "witness"}):
        figure.savefig(content, format="svg", bbox_inches=_box(figure), metadata=nothing)
    return _with_texts(content.getvalue())


def _box(figure: Figure) -> Bbox:
    """What a figure covers, in inches: all of it, and a title that is longer than it is wide.

    It is laid out here, once for all formats: matplotlib would draw it twice for each.
    """
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)
    return figure.get_tightbbox().padded(_MARGIN)


def _with_texts(svg: bytes) -> bytes:
    """The file with the texts of `hover` as titles of the dots, in place of the names of lines that carried them."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    root = ElementTree.fromstring(svg)
    for number, line in enumerate(own for own in root.iter() if own.get("id", "").startswith(_HOVER)):
        texts = json.loads(line.get("id", "").removeprefix(_HOVER))
        line.set("id", f"dots_{number}")
        # matplotlib draws a dot for each point that is a number, in their order; a legend's has no name.
        for dot, text in zip(line.iter(f"{{{_SVG}}}use"), texts, strict=True):
            ElementTree.SubElement(dot, f"{{{_SVG}}}title").text = text
    written: bytes = ElementTree.tostring(root, xml_declaration=True, encoding="utf-8")
    return written


def within_page(svg: bytes, name: str) -> str:
    """An SVG file of `as_svg` as an element of an HTML page.

    It takes the page's colours. Names of its parts begin with that of the figure, so that several figures of one page
    do not refer to each other's.

    Args:
        svg: the file.
        name: of the figure, in letters, digits and hyphens.
    """
    element = svg.decode()
    element = element[element.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r' xmlns(:\w+)?="[^"]*"', "", element)
    element = re.sub(r"xlink:href=", "href=", element)
    element = re.sub(r'(?<= id=")|(?<=href="#)|(?<=url\(#)', f"{name}-", element)
    width, height = (float(found) for found in re.findall(r' (?:width|height)="([0-9.]+)pt"', element)[:2])
    style = f"--width:{width:.0f}pt;width:var(--width);aspect-ratio:{width:.0f}/{height:.0f}"
    size = f' role="img" aria-label="{name}" style="{style}"'
    element = re.sub(r' width="[0-9.]+pt"| height="[0-9.]+pt"', "", element, count=2)
    for colour, variable in _ON_PAGE.items():
        element = re.sub(rf"(?<=[ :]){colour}\b", f"var({variable})", element)
    return element.replace("<svg", f"<svg{size}", 1)
