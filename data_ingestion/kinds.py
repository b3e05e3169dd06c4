"""The kind of one column, from its texts.

A column is a number, an integer or a date when all but a tolerated share of its present values read as one, and a
boolean when all are two words such as yes and no; otherwise it is a category, or text. What would lose information
stays text: leading zeros, integers of more than 18 digits, exponents among integers.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_ingestion.casting import cast_column, number_pattern
from data_ingestion.schema import ISO, Column
from data_ingestion.texts import Forms, Texts

MAX_TOLERATED = 0.2  # of a column's values; with more that do not read as a kind, it is of another
BOOLEAN_WORDS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))
DATE_FORMATS = ("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M")
# A slash date is read only when no value fits both orders: 03/04/2024 is the 3rd of April or the 4th of March.
_SLASHED = ("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
SLASH_FORMATS = (*(date + clock for date in _SLASHED for clock in _CLOCKS), "%d/%m/%y", "%m/%d/%y")
NAMED_FORMATS = ("%b %d %Y", "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y", "%d %B %Y")  # English months
_DATE_FORMS = r"^(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}$|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}$)"
_SNIFFED_ROWS = 32
COMMA = Column(kind="number", decimal=",")


@dataclass(frozen=True)
class Guess:
    """The kind of a column, with what its contract entry needs and a remark for the reader where one is due."""

    column: Column
    remark: str | None = None

    @property
    def way_to_read(self) -> tuple[object, ...]:
        """What decides how a column's texts become values; categories and text are read alike."""
        c = self.column
        kind = "category" if c.kind == "text" else c.kind
        return kind, c.format, c.decimal, c.thousands, c.currency, c.true_values, c.false_values


def guess_kind(texts: Texts, tolerated: float) -> Guess:
    """Return the kind of a column from its present texts.

    Parameters
    ----------
    texts : those that are not missing
    tolerated : the share that may fail to read as the kind
    """
    if not texts.total:
        return Guess(Column(kind="text", role="ignored", reason="every value is missing"))
    allowed = min(tolerated, MAX_TOLERATED) * texts.total
    forms = texts.count_forms()
    number = guess_number(forms, allowed)
    if number is not None:
        return number
    if _has_decimal_comma(texts, allowed):
        return Guess(COMMA, "read as numbers with a decimal comma")
    for true, false in BOOLEAN_WORDS:
        words = _spellings(texts, (true, false))
        if words is not None:
            return Guess(Column(kind="boolean", true_values=words[0], false_values=words[1]))
    format = _find_date_format(texts, allowed)
    if format is not None:
        return Guess(Column(kind="datetime", format=format))
    return Guess(Column(kind="category"), _find_doubt(texts, forms))


def guess_number(forms: Forms, allowed: float) -> Guess | None:
    """Return number or integer, or why texts that look like numbers stay texts; None when they are no numbers."""
    if forms.present - forms.numbers > allowed:
        return None
    if forms.zero_led:
        return Guess(Column(kind="category"), "kept as text: leading zeros")
    if forms.long > allowed:
        return Guess(Column(kind="category"), "kept as text: integers of more than 18 digits")
    if forms.exponents and forms.exponents + forms.integers == forms.present:
        return Guess(Column(kind="category"), "kept as text: exponents such as 1e5 among integers")
    return Guess(Column(kind="integer" if forms.integers and not forms.decimals else "number"))


def has_points_between_thousands(texts: Texts, tolerated: float) -> bool:
    """Return whether all points of a column may stand between thousands, as they do beside a decimal comma."""
    allowed = min(tolerated, MAX_TOLERATED) * texts.total
    pointed = texts.count(r"\.")
    is_grouped = pointed > 0 and pointed - texts.count(r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$") <= allowed
    return is_grouped and texts.total - texts.count(number_pattern(COMMA)) <= allowed


def _has_decimal_comma(texts: Texts, allowed: float) -> bool:
    """Return whether the texts are numbers such as 1.234,5, and not all such as 1,234, which may be a thousand."""
    clear = texts.count(",") - texts.count(r"^[+-]?\d{1,3},\d{3}$")
    return clear > 0 and texts.total - texts.count(number_pattern(COMMA)) <= allowed


def _find_doubt(texts: Texts, forms: Forms) -> str | None:
    """Return what a reader should know of texts that may have been meant otherwise, or None."""
    total = texts.total
    doubts = (
        (
            2 * forms.numbers > total,
            f"{total - forms.numbers:,} of {total:,} values are no numbers; if they should be, list them under "
            "missing, or raise max_rejected",
        ),
        (
            2 * texts.count(r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$") > total,
            'its commas may set off thousands or decimals; write kind: number and thousands: ",", or decimal: ","',
        ),
        (
            2 * texts.count(r"^\d{1,2}/\d{1,2}/\d{4}$") > total,
            "its dates may begin with the day or the month; write kind: datetime, role: feature and format: '%d/%m/%Y' "
            "or '%m/%d/%Y'",
        ),
        (
            2 * texts.count(_DATE_FORMS) > total,
            "its dates are written in more ways than one, or in one that is not known or may mean two things; write "
            "kind: datetime, role: feature and a format such as '%d/%m/%y', '%d-%m-%Y %H:%M' or '%m/%d/%Y %I:%M %p'",
        ),
        (
            2 * texts.count(r"^[+-]?([$€£¥] ?[+-]?[\d.,]+|[+-]?[\d.,]+ ?[%$€£¥])$") > total,
            "they look like numbers with a sign of their unit; to read them so, write kind: number, role: feature and "
            'currency: with the sign (and decimal: "," for 1.234,5, or thousands: "," for 1,234.5)',
        ),
        (2 * texts.count(r"^\d{1,2}:\d{2}(:\d{2})?$") > total, "times of day have no kind of their own"),
    )
    return next((f"read as text: {why}" for holds, why in doubts if holds), None)


def _spellings(texts: Texts, words: tuple[str, str]) -> tuple[list[str], list[str]] | None:
    """Return how the file spells the two words, or None when it holds any other or only one of them."""
    distinct = texts.values.to_pylist() if len(texts.values) <= 8 else []
    found = tuple(sorted(text for text in distinct if text.lower() == word) for word in words)
    return found if all(found) and sum(map(len, found)) == len(distinct) else None  # type: ignore[return-value]


def _find_date_format(texts: Texts, allowed: float) -> str | None:
    """Return the one format in which all but `allowed` values are dates, or None."""
    if texts.total - texts.count(_DATE_FORMS) > allowed:
        return None
    fitting = []
    for format in _list_likely_formats(_sample_rows(texts)):
        cast = cast_column(texts.values, Column(kind="datetime", format=format), [])
        if texts.count_where(cast.is_fault) <= allowed:
            fitting.append(format)
    if set(fitting) <= set(NAMED_FORMATS):  # May is both a name and its short form, and says the same in both
        return fitting[0] if fitting else None
    return fitting[0] if len(fitting) == 1 else None


def _sample_rows(texts: Texts) -> pa.Array:
    """Return the texts of a few rows, spread evenly: what most rows hold is most of them."""
    rows = np.linspace(0, texts.total - 1, _SNIFFED_ROWS).astype(np.int64)
    return texts.values.take(pa.array(np.searchsorted(np.cumsum(texts.counts), rows, side="right")))


def _list_likely_formats(sample: pa.Array) -> list[str]:
    """Return the formats that read at least half of a few values; only they are worth trying on all."""
    likely = []
    for format in (ISO, *DATE_FORMATS, *SLASH_FORMATS, *NAMED_FORMATS):
        cast = cast_column(sample, Column(kind="datetime", format=format), [])
        if 2 * pc.sum(cast.is_fault).as_py() <= len(sample):
            likely.append(format)
    return likely
