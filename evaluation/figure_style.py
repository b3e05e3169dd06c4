"""The look that all figures share, and how a figure becomes SVG: alone in a file, or as a part of the page.

Every colour stands for a role. In a file it is written as it is; in the page it becomes a variable of the style
sheet, which knows light, dark and print. Texts stay texts: the browser has letters that matplotlib's font lacks.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from unicodedata import east_asian_width
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from evaluation.formatting import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, MUTED, LINE, ACCENT, PAPER = "#22303a", "#5c6a73", "#dde3e6", "#1f6f8b", "#fefefe"
ROLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--card"}
WIDTH, HEIGHT = 4.3, 3.3  # inches: on a phone a point of the figure is about a pixel
POINTS_PER_INCH, LABEL_SIZE = 72, 9

STYLE: dict[str, object] = {
    "text.parse_math": False,  # names come from the data: a $ begins no formula
    "svg.fonttype": "none",
    "svg.hashsalt": "figures",  # the same figure gives the same bytes
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": LABEL_SIZE,
    "ytick.labelsize": LABEL_SIZE,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "legend.fontsize": LABEL_SIZE,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}


@contextmanager
def use_style() -> Iterator[None]:
    """Draw in the common style within this block."""
    with rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]  # keys as literals
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # only measured here, drawn by the browser
        yield


def new_axes(width: float = WIDTH, height: float = HEIGHT) -> tuple[Figure, "Axes"]:
    """Return an empty figure of that many inches and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def format_axes(axes: "Axes", *names: Literal["x", "y"], ticks: int = 5) -> None:
    """Give these axes about as many ticks, with numbers as the text writes them."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))


def cut(text: object, length: int) -> str:
    """Return a name on one line, its middle left out where it is longer: beginnings and ends tell names apart.

    A letter of Chinese, Japanese or Korean is as wide as two others, and counts as two.
    """
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in str(text)).split())
    if len(line) + count_wide(line) <= length:
        return line
    head, tail = length - length // 3 - 1, length // 3
    while len(line[:head]) + count_wide(line[:head]) > length - length // 3 - 1:
        head -= 1
    while len(line[-tail:]) + count_wide(line[-tail:]) > length // 3:
        tail -= 1
    return f"{line[:head].rstrip()}…{line[-tail:].lstrip()}"


def count_wide(text: str) -> int:
    """Return how many letters of a text are as wide as two."""
    return sum(east_asian_width(letter) in "WF" for letter in text)


def make_room(figure: Figure, labels: Sequence[str], below: bool = False) -> None:
    """Keep room for wide letters on the left, and below: matplotlib lacks them and takes them for narrower.

    Parameters
    ----------
    figure : with a constrained layout
    labels : of its vertical axis
    below : the horizontal axis has the same labels, turned upright
    """
    missing = 0.4 * max(map(count_wide, labels), default=0) * LABEL_SIZE / POINTS_PER_INCH
    width, height = figure.get_size_inches()
    left, bottom = missing / width, missing / height if below else 0.0
    figure.set_layout_engine("constrained", rect=(left, bottom, 1 - left, 1 - bottom))


def to_svg(figure: Figure) -> bytes:
    """Return a figure as an SVG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def embed_svg(content: bytes, name: str) -> str:
    """Return the element `svg` of a figure that `to_svg` wrote, for a page that holds several.

    Parameters
    ----------
    content : the file
    name : begins the identifiers, so that no two figures of a page share one
    """
    root = ElementTree.fromstring(content)
    used = set(re.findall(r"#([\w-]+)", " ".join(value for part in root.iter() for value in part.attrib.values())))
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _drop_namespace(element.tag)  # in HTML the element svg brings it
        known = {_drop_namespace(key): value for key, value in element.attrib.items()}
        element.attrib.clear()
        for key, value in known.items():
            if key != "id" or value in used:
                element.attrib[key] = _adapt_attribute(key, value, name)
        element.text, element.tail = (element.text if element.tag == "text" else None), None
    view_box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib.update({"viewBox": view_box, "aria-hidden": "true", "style": f"--natural: {view_box.split()[2]}"})
    return ElementTree.tostring(root, encoding="unicode")


def _drop_namespace(name: str) -> str:
    return name.rpartition("}")[2]


def _adapt_attribute(key: str, value: str, name: str) -> str:
    """Return an attribute's value with colours by role, identifiers of this figure, and no more digits than show."""
    if key == "id":
        return f"{name}-{value}"
    if key == "style":
        value = re.sub(r"font-family: [^;]*; ?", "", value)
        for color, role in ROLES.items():
            value = value.replace(color, f"var({role})")
        return value
    return re.sub(r"(\.\d\d)\d+", r"\1", value.replace("#", f"#{name}-")).replace("\n", "")
