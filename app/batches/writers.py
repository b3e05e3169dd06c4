"""Answers to a batch as JSON, NDJSON or CSV: in pieces, a slice each.

Rows are put together from columns of texts: a dictionary for each row, or the csv module, took five times as long.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from app import predictions
from app.batches.answers import (
    ID_DIGITS,
    Answers,
    describe_faults,
    describe_members,
    join_groups,
)
from app.batches.header import list_answers
from app.errors import ApiError, ErrorList
from app.model_host import Served

_NEEDS_QUOTES = re.compile(r'[",\r\n]')

Texts = Sequence[str]


def to_json(value: object) -> str:
    """Return a value as JSON."""
    return predictions.to_json(value).decode()


def spell(numbers: NDArray[np.generic]) -> list[str]:
    """Return numbers as JSON has them, with as many digits as it takes to read the same numbers again."""
    return to_json(numbers.tolist())[1:-1].split(",")


# JSON


def write_json(served: Served, kept: Texts, answered: Iterable[Answers]) -> Iterator[bytes]:
    """Yield one JSON object, see `schemas.BatchPrediction`.

    Raises
    ------
    ApiError : 422 before anything is yielded, when no row is good
    """
    errors, n_rows = ErrorList(), 0
    lead = f'{{"model_version":{to_json(served.version)},"predictions":['
    for some in answered:
        n_rows += some.n_rows
        texts = list_answers_as_json(served, some)
        if not some.is_good.all():
            add_errors(some, errors)
            texts = [texts[place] for place in np.flatnonzero(some.is_good).tolist()]
        if texts:
            yield (lead + ",".join(texts)).encode()
            lead = ","
    if lead != ",":
        raise ApiError(422, f"All {n_rows:,} rows were refused; see errors.", errors)
    yield f'],"errors":{to_json(errors.to_dicts())},"errors_total":{errors.total}}}'.encode()


def write_ndjson(served: Served, kept: Texts, answered: Iterable[Answers]) -> Iterator[bytes]:
    """Yield a line for each row: its answer, or why there is none."""
    tail = f',"model_version":{to_json(served.version)}}}\n'
    for some in answered:
        texts = list_answers_as_json(served, some)
        for place in np.flatnonzero(~some.is_good).tolist():
            found = some.faults.groups[some.faults.codes[place]]
            said = [{k: v for k, v in fault._asdict().items() if v is not None} for fault in found]
            texts[place] = to_json({"index": some.start + place, "errors": said})
        yield "".join([text[:-1] + tail for text in texts]).encode()


def add_errors(some: Answers, errors: ErrorList) -> None:
    """Add what is wrong with the rows of a slice."""
    for place in np.flatnonzero(~some.is_good).tolist():
        for field, rule, message in some.faults.groups[some.faults.codes[place]]:
            errors.add(rule, message, field, some.start + place)


def list_answers_as_json(served: Served, some: Answers) -> list[str]:
    """Return for each row its answer, see `schemas.RowPrediction`; of a refused row something that is none."""
    warnings = list(map(to_json, some.warnings.groups))
    parts: list[Iterable[str]] = [repeat('{"index":'), map(str, range(some.start, some.start + some.n_rows))]
    parts += [repeat(',"prediction":'), list_predictions(served, some, to_json)]
    parts += [repeat(',"prediction_id":"'), list_ids(some)]
    parts += [repeat('","warnings":'), [warnings[code] for code in some.warnings.codes.tolist()]]
    if some.shares is not None:
        lead = ',"probabilities":{'
        for label, shares in zip(served.labels, some.shares.T, strict=True):
            parts += [repeat(f"{lead}{to_json(label)}:"), spell(shares)]
            lead = ","
        parts.append(repeat("}"))
    if some.bounds is not None:
        low, high = map(spell, some.bounds.T)
        parts += [repeat(',"interval":['), low, repeat(","), high, repeat("]")]
    if some.members is not None:
        classes = served.model.manifest.classes or []
        sets = [to_json([classes[place] for place in places]) for places in some.members.groups]
        parts += [repeat(',"prediction_set":'), [sets[code] for code in some.members.codes.tolist()]]
    return list(map("".join, zip(*parts, repeat("}"), strict=False)))


def list_predictions(served: Served, some: Answers, spell_label: Callable[[object], str]) -> list[str]:
    """Return the numbers, or the labels of the classes, as texts."""
    if some.shares is None:
        return spell(some.values)
    labels = [spell_label(label) for label in served.model.manifest.classes or []]
    return [labels[place] for place in some.values.tolist()]


def list_ids(some: Answers) -> list[str]:
    """Return the id of each row."""
    digits = some.ids.decode()
    return [digits[start : start + ID_DIGITS] for start in range(0, len(digits), ID_DIGITS)]


# CSV


def write_csv(
    served: Served, kept: Texts, answered: Iterable[Answers], to_texts: Callable[[object], Sequence[str | None]]
) -> Iterator[bytes]:
    """Yield a CSV with a line for each row, in the order of the rows; what is not there is empty.

    Kept fields are written as they came: a text that a spreadsheet would take for a formula stays what it is.

    Parameters
    ----------
    served : the model
    kept : the names of the kept columns
    answered : the slices
    to_texts : returns a kept column as texts
    """
    yield (",".join(map(quote, [*kept, *list_answers(served)])) + "\n").encode()
    for some in answered:
        columns = [quote_all([text or "" for text in to_texts(column)]) for column in some.kept]
        columns += list_columns(served, some)
        yield ("\n".join(map(",".join, zip(*columns, strict=True))) + "\n").encode()


def list_columns(served: Served, some: Answers) -> list[Texts]:
    """Return the columns of `list_answers`, each (n_rows,) fields of a CSV; empty where a row is refused."""
    columns: list[Texts] = [list_predictions(served, some, lambda label: quote(str(label)))]
    columns += [] if some.shares is None else map(spell, some.shares.T)
    columns += [] if some.bounds is None else map(spell, some.bounds.T)
    if some.members is not None:
        columns.append(spread(describe_members(some.members, served.labels), some.members.codes))
    columns.append(list_ids(some))
    if not some.is_good.all():
        is_good = some.is_good.tolist()
        columns = [[v if good else "" for v, good in zip(c, is_good, strict=True)] for c in columns]
    warnings = spread(join_groups(some.warnings), some.warnings.codes)
    return [*columns, [served.version] * some.n_rows, warnings, spread(describe_faults(some.faults), some.faults.codes)]


def spread(groups: Sequence[str | None], codes: NDArray[np.intp]) -> list[str]:
    """Return (n_rows,) the group of each row as a field of a CSV."""
    fields = [quote(text or "") for text in groups]
    return [fields[code] for code in codes.tolist()]


def quote(text: str) -> str:
    """Return a text as a field of a CSV."""
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def quote_all(texts: Texts) -> Texts:
    """Return texts as fields of a CSV."""
    return list(map(quote, texts)) if _NEEDS_QUOTES.search("".join(texts)) else texts
