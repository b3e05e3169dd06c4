"""How the report writes numbers and names: as many digits as help a reader, and no text that passes for markup."""

import html
import math
import re
from collections.abc import Sequence

NOTHING = "–"


def format_number(value: object) -> str:
    """Return a value of a column or a target: numbers with four digits that count, anything else as it is."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, float | int):
        return str(value)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e15 or 0 < size < 1e-4:
        return f"{value:.3g}"
    if size >= 9_999.5:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value == int(value) else f"{value:.4g}"  # no 2,026: it may be a year


def format_percent(share: float | None) -> str:
    """Return a share in percent, with a digit after the point where it is near nothing or all."""
    if share is None:
        return NOTHING
    percent = 100 * share
    if 0 < percent < 0.1:
        return "<0.1%"
    if 99.9 < percent < 100:
        return ">99.9%"
    near = 0 < percent < 9.95 or 99 < percent < 100
    return f"{percent:.1f}%" if near else f"{percent:.0f}%"


def format_duration(seconds: float | None) -> str:
    """Return a time in the unit that fits: µs, ms, s or min."""
    if seconds is None:
        return NOTHING
    for unit, size in (("min", 120.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / (60 if unit == 'min' else size):,.3g} {unit}"
    return f"{seconds * 1e6:,.3g} µs"


def format_probability(p: float | None) -> str:
    """Return a p-value; below a thousandth only that it is."""
    return NOTHING if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it is not one."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def format_point(value: object) -> str:
    """Return a value of a raw column; a moment at midnight is a day."""
    if value is None:
        return "missing"
    text = format_number(value)
    moment = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", text)
    if moment is None:
        return text
    return moment[1] if moment[2] == "00:00" else f"{moment[1]} {moment[2]}"


def join_texts(texts: Sequence[str], count: int) -> str:
    """Return texts in a row, with the number of the others where there are `count` in all."""
    more = f" and {count - len(texts):,} more" if count > len(texts) else ""
    return ", ".join(texts) + more


def end_sentence(text: str) -> str:
    """Return a text that begins and ends like a sentence."""
    line = text.strip()
    return f"{line[:1].upper()}{line[1:]}{'' if line.endswith(('.', '!', '?')) else '.'}"


def escape_markdown(text: object) -> str:
    """Return a text that Markdown shows as it is, on one line, in a table too; it mentions and links nobody."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"@(?=\w)", "@\u200b", re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", line))
