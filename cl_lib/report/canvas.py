"""Figures without global state: panels, a style for each entry, and SVG that can be embedded in a page."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from cl_lib.errors import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.6  # inches; pages show 96 pixels per inch
INK, GREY, FAINT = "#1a1a1a", "#8a9099", "#d5d9de"

# Okabe & Ito's palette without yellow and black, then Tol's muted palette: distinguishable with any colour vision
COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#882255", "#332288", "#999933", "#44aa99", "#aa4499", "#666666"),
)
MARKERS = "osD^vPX<>*hp"
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))

PARAMETERS: dict[Any, Any] = {
    "svg.fonttype": "none",  # keep text as text: small, searchable, accessible to screen readers
    "svg.hashsalt": "cl_lib",  # the same record gives the same bytes
    "text.parse_math": False,  # print dollar signs in names as they are
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    "figure.dpi": 100,
    "savefig.dpi": 200,
}


class Style(NamedTuple):
    """Colour, marker and dash of an entry in all figures of a report."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


def style(number: int) -> Style:
    """Style of the entry at a position: entries differ in colour and marker first, then in dash.

    >>> style(0).colour != style(1).colour, style(0).dash != style(12).dash
    (True, True)
    """
    count = len(COLOURS)
    return Style(COLOURS[number % count], MARKERS[number % count], DASHES[number // count % len(DASHES)])


@contextmanager
def panels(
    count: int, columns: int, height: float, *, width: float = WIDTH, ratios: Sequence[float] = (1.0,)
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Make a figure of ``count`` panels, at most ``columns`` in a row, each ``height`` inches high.

    With several ``ratios``, each panel is a stack of axes with these height ratios, consecutive in the list.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns, depth = min(columns, count), len(ratios)
    rows = math.ceil(count / columns)
    with rc_context(PARAMETERS):
        figure = Figure(figsize=(width, rows * height), layout="constrained")
        grid = figure.subplots(rows * depth, columns, squeeze=False, height_ratios=list(ratios) * rows)
        # row, depth, column -> row, column, depth
        ordered = grid.reshape(rows, depth, columns).swapaxes(1, 2).reshape(-1).tolist()
        for unused in ordered[count * depth :]:
            unused.remove()
        yield figure, ordered[: count * depth]


def svg(figure: Figure, description: str) -> str:
    """Convert a figure to an ``<svg>`` element for a page; call within `panels`.

    Document type, metadata and ids of groups are removed: the first two contain external addresses, and the ids would
    clash with those of other figures in the page.
    """
    from html import escape

    file = io.StringIO()
    with warnings.catch_warnings():  # text is kept as text and drawn with the reader's fonts
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1).strip()


def name_axis(axes: Axes, names: Sequence[str], room: int, longest: int = 14) -> None:
    """Label the x axis with at most ``room`` names, rotated if they are long."""
    step = max(1, math.ceil(len(names) / room))
    shown = [i for i in range(len(names)) if i % step == 0]
    labels = [names[i] if len(names[i]) <= longest else names[i][: longest - 1] + "…" for i in shown]
    long = max(map(len, labels), default=0) * len(labels) > room * 4
    axes.set_xticks(shown, labels, rotation=45 if long else 0, ha="right" if long else "center", rotation_mode="anchor")


def numbered(names: Sequence[str]) -> tuple[str, list[str]]:
    """Split names that end in numbers into their common prefix and the numbers.

    >>> numbered(["task 1", "task 2"]), numbered(["cat", "dog"])
    (('task', ['1', '2']), ('', ['cat', 'dog']))
    """
    names = [printable(name, one_line=True) for name in names]
    heads = {name.rpartition(" ")[0] for name in names}
    if len(heads) == 1 and all(name.rpartition(" ")[2].isdigit() for name in names):
        return heads.pop(), [name.rpartition(" ")[2] for name in names]
    return "", names


def in_legend(label: str, most: int = 44) -> str:
    """Label for a legend; Matplotlib omits labels that begin with an underscore, so these are preceded by a space.

    >>> in_legend("_mine")
    ' _mine'
    """
    return shorten(f" {label}" if label.startswith("_") else label, most)


def shorten(label: str, most: int) -> str:
    """Shorten a label to at most ``most`` characters.

    >>> shorten("er capacity=200, lr=0.1", 12)
    'er capacity…'
    """
    label = printable(label, one_line=True)
    return label if len(label) <= most else label[: most - 1] + "…"
