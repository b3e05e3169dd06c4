"""Batches of any form: JSON, NDJSON, CSV, Parquet or Arrow in, and any of them that fits out.

Everything that can be refused as a whole is, before the first byte of the answer; then rows are answered slice by
slice, so that memory holds the body, what was read of it, and one slice of answers.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.batches.answers import Answers, answer_slice, count_warnings
from app.batches.csv_rows import read_csv
from app.batches.formats import MEDIA_TYPES, NEED_ARROW, Forms, list_forms
from app.batches.json_rows import read_json, read_ndjson
from app.batches.slices import Slice
from app.batches.writers import write_csv, write_json, write_ndjson
from app.errors import ApiError
from app.metrics.counters import Metrics
from app.model_host import Served


class Limits(NamedTuple):
    """How much a batch may be: rows, and bytes as they are unpacked."""

    max_rows: int
    max_bytes: int


def answer_batch(served: Served, content: bytes, forms: Forms, limits: Limits, metrics: Metrics) -> Iterator[bytes]:
    """Yield the answer to a batch.

    Parameters
    ----------
    served : the model
    content : the body
    forms : what the body is, and what the answer is to be
    limits : of the body
    metrics : counts rows and warnings

    Raises
    ------
    ApiError : before anything is yielded: 406 or 415 when it cannot be written or read here, 4xx when it is refused
    """
    for form, status in ((forms.body, 415), (forms.answer, 406)):
        if form not in list_forms():
            other = "Use JSON, NDJSON or CSV, or install it: pip install pyarrow"
            raise ApiError(status, f"This server has no PyArrow, which {MEDIA_TYPES[form]} needs. {other}")
    kept, slices = _read(served, content, forms, limits)
    yield from _write(served, kept, _answer(served, slices, metrics), forms)


def _answer(served: Served, slices: Iterator[Slice], metrics: Metrics) -> Iterator[Answers]:
    for some in slices:
        answers = answer_slice(served, some)
        n_good = int(answers.is_good.sum())
        metrics.count_rows(n_good, answers.n_rows - n_good)
        if len(answers.warnings.groups) > 1:
            metrics.count_warnings(count_warnings(served, answers))
        yield answers


def _read(served: Served, content: bytes, forms: Forms, limits: Limits) -> tuple[Sequence[str], Iterator[Slice]]:
    """Return the names of the kept columns, and the rows."""
    body, _, keep = forms
    if body == "json":
        return (), read_json(served, content, limits.max_rows)
    if body == "ndjson":
        return (), read_ndjson(served, content, limits.max_rows)
    if body == "csv":
        return read_csv(served, content, keep, limits.max_rows)
    from app.batches.tables import read_arrow, read_parquet

    read = read_parquet if body == "parquet" else read_arrow
    return read(served, content, keep, *limits)


def _write(served: Served, kept: Sequence[str], answered: Iterator[Answers], forms: Forms) -> Iterator[bytes]:
    body, answer, _ = forms
    if answer == "json":
        return write_json(served, kept, answered)
    if answer == "ndjson":
        return write_ndjson(served, kept, answered)
    if answer == "csv" and body not in NEED_ARROW:
        return write_csv(served, kept, answered, lambda column: column)  # type: ignore[arg-type, return-value]
    from app.batches.table_writers import to_texts, write_arrow, write_parquet

    if answer == "csv":
        return write_csv(served, kept, answered, to_texts)
    return write_parquet(served, kept, answered) if answer == "parquet" else write_arrow(served, kept, answered)
