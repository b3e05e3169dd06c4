"""What the columns of a CSV hold, found out over the whole file.

A column is a number, an integer or a date when all but a tolerated share of its present values read as one, and a
boolean when all are two words such as yes and no;
otherwise it is a category, or text. What would lose information stays text: leading zeros, integers of more than 18
digits, exponents among integers.
"""

import re
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from data_ingestion.casting import COMMA_NUMBER, INTEGER, NUMBER, cast_column
from data_ingestion.csv_reader import TextTable
from data_ingestion.handoff import PipelineError
from data_ingestion.params import suggest
from data_ingestion.schema import ISO, MISSING, WHOLE_FILE, Column, Contract, Kind, Role, Task, join_names

MAX_CATEGORIES_LISTED = 1000
MAX_INTEGER_CLASSES = 10
MAX_CLASSES = 100
MIN_ROWS_FOR_ID = 20
SNIFFED_VALUES = 1000
BOOLEAN_WORDS = (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"))
DATE_FORMATS = ("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M")
# A slash date is read only when no value fits both orders: 03/04/2024 is the 3rd of April or the 4th of March.
SLASH_FORMATS = ("%d/%m/%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S")
_ID_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index|rownum)$|[a-z]I[dD]$", re.IGNORECASE)


@dataclass(frozen=True)
class Guess:
    """The kind of a column, with what its contract entry needs and a remark for the reader where one is due."""

    column: Column
    remark: str | None = None


def infer_contract(
    texts: TextTable, source: str, separator: str, target: str, task: str, tolerated: float
) -> tuple[Contract, list[str]]:
    """Return the contract that the texts suggest, and remarks on what was not obvious.

    Parameters
    ----------
    texts : the file as texts
    source, separator : the file's name and its separator
    target : the column to predict
    task : regression or classification to decide it, auto to find it out
    tolerated : the share of present values of a column that may fail to read as its kind

    Raises
    ------
    PipelineError : the target is not a column, or its values allow no task
    """
    missing = list(MISSING)
    if target not in texts.table.column_names:
        near = suggest(target, texts.table.column_names)
        raise PipelineError(f'{source}: there is no column "{target}".{near} Use --target COLUMN')
    columns: dict[str, Column] = {}
    remarks: dict[str, list[str]] = {}  # the columns that each is due to
    for name in texts.table.column_names:
        guess = infer_column(name, texts.table[name].combine_chunks(), missing, tolerated)
        columns[name] = guess.column
        if guess.remark and name != target:
            remarks.setdefault(guess.remark, []).append(name)
    notes = [f"column {join_names(names)}: {remark}" for remark, names in remarks.items()]
    notes += _describe_words_for_missing(texts.table)
    values = texts.table[target].combine_chunks()
    try:
        columns[target], found = infer_target(columns[target], values, missing, task)
    except ValueError as err:
        raise PipelineError(f'{source}: column "{target}" cannot be the target: {err}. Name another.') from err
    if not any(column.role == "feature" for column in columns.values()):
        why = "; ".join(f'"{name}": {column.reason}' for name, column in columns.items() if column.reason)
        raise PipelineError(f"{source}: no column is left to learn from ({why}). Give it more columns or rows.")
    columns = add_examples(columns, texts.table, missing)
    return Contract(source=source, separator=separator, target=target, task=found, columns=columns), notes


def _describe_words_for_missing(table: pa.Table) -> list[str]:
    """Return a note on each spelling of missing that may have been meant as a value."""
    notes = []
    for word in ("None", "null", "NULL", "?"):
        found = [name for name in table.column_names if pc.any(pc.equal(table[name], word)).as_py()]
        if found:
            keep = "if it is a value there, write missing without it in data/schema.yaml"
            notes.append(f'"{word}" means missing, as in {join_names(found)}; {keep}')
    return notes


def infer_column(name: str, texts: pa.Array, missing: list[str], tolerated: float) -> Guess:
    """Return what one column holds and whether a model can learn from it.

    Parameters
    ----------
    name : the column's name
    texts : (n_rows,) string, trimmed, without nulls
    missing : the texts that mean missing
    tolerated : the share of present values that may fail to read as the kind
    """
    present = texts.filter(pc.invert(pc.is_in(texts, value_set=pa.array(missing, pa.string()))))
    nullable = len(present) < len(texts)
    if not len(present):
        return Guess(Column(kind="text", role="ignored", reason="every value is missing"))
    guess = _guess_kind(present, tolerated)
    column = guess.column.model_copy(update={"nullable": nullable})
    values = cast_column(present, column, []).values.drop_null()
    reason = _find_uselessness(name, column, values)
    if reason is not None:
        column = column.model_copy(update={"role": "ignored", "reason": reason})
    return Guess(describe_column(column, values), guess.remark)


def _guess_kind(present: pa.Array, tolerated: float) -> Guess:
    """Return the kind of the present texts."""
    allowed = tolerated * len(present)
    integers, numbers = _count(present, INTEGER), _count(present, NUMBER)
    if len(present) - numbers <= allowed:
        keeps = _find_lossy_form(present, allowed)
        if keeps is not None:
            return Guess(Column(kind="category"), f"kept as text: {keeps}")
        decimals = _count(present, r"[.eE]")
        return Guess(Column(kind="integer" if integers and not decimals else "number"))
    if _has_decimal_comma(present, allowed):
        return Guess(Column(kind="number", decimal=","), "read as numbers with a decimal comma")
    for true, false in BOOLEAN_WORDS:
        words = _spellings(present, (true, false))
        if words is not None:
            return Guess(Column(kind="boolean", true_values=words[0], false_values=words[1]))
    format = _find_date_format(present, allowed)
    if format is not None:
        return Guess(Column(kind="datetime", format=format))
    mean_length = pc.mean(pc.utf8_length(present)).as_py()
    is_prose = mean_length > 40 and 2 * pc.count_distinct(present).as_py() > len(present)
    column = Column(kind="text", role="ignored") if is_prose else Column(kind="category")
    return Guess(column, _find_doubt(present, numbers))


def _has_decimal_comma(present: pa.Array, allowed: float) -> bool:
    """Return whether the texts are numbers such as 1.234,5, and not all such as 1,234, which may be a thousand."""
    with_comma = _count(present, ",")
    clear = with_comma - _count(present, r"^[+-]?\d{1,3},\d{3}$")
    return clear > 0 and len(present) - _count(present, COMMA_NUMBER) <= allowed


def _find_doubt(present: pa.Array, numbers: int) -> str | None:
    """Return what a reader should know of texts that may have been meant otherwise, or None."""
    total = len(present)
    doubts = (
        (
            2 * numbers > total,
            f"{total - numbers:,} of {total:,} values are no numbers; if they should be, list them under missing, or "
            "raise max_rejected",
        ),
        (
            2 * _count(present, r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$") > total,
            'its commas may set off thousands or decimals; for decimals write kind: number and decimal: ","',
        ),
        (
            2 * _count(present, r"^\d{1,2}/\d{1,2}/\d{4}") > total,
            "its dates may begin with the day or the month; write kind: datetime and format: '%d/%m/%Y' or '%m/%d/%Y'",
        ),
        (
            2 * _count(present, r"^[+-]?[$€£¥]? ?[+-]?[\d.,]+ ?[%$€£¥]?$") > total,
            "they look like numbers with a sign of their unit; without it they would be read as numbers",
        ),
        (2 * _count(present, r"^\d{1,2}:\d{2}(:\d{2})?$") > total, "times of day have no kind of their own"),
    )
    return next((f"read as text: {why}" for holds, why in doubts if holds), None)


def _find_lossy_form(present: pa.Array, allowed: float) -> str | None:
    """Return why texts that look like numbers must stay texts, or None."""
    if _count(present, r"^[+-]?0\d"):
        return "leading zeros"
    if _count(present, r"^[+-]?\d{19,}$") > allowed:
        return "integers of more than 18 digits"
    exponents = _count(present, r"^\d+[eE]\d+$")
    if exponents and exponents + _count(present, INTEGER) == len(present):
        return "exponents such as 1e5 among integers"
    return None


def _count(texts: pa.Array, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0)


def _spellings(present: pa.Array, words: tuple[str, str]) -> tuple[list[str], list[str]] | None:
    """Return how the file spells the two words, or None when it holds any other or only one of them."""
    distinct = pc.unique(present).to_pylist() if pc.count_distinct(present.slice(0, 1000)).as_py() <= 8 else []
    found = tuple(sorted(text for text in distinct if text.lower() == word) for word in words)
    return found if all(found) and sum(map(len, found)) == len(set(distinct)) else None  # type: ignore[return-value]


def _find_date_format(present: pa.Array, allowed: float) -> str | None:
    """Return the one format in which all but `allowed` values are dates, or None."""
    if len(present) - _count(present, r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}") > allowed:
        return None
    fitting = []
    for format in _list_likely_formats(present.slice(0, SNIFFED_VALUES)):
        cast = cast_column(present, Column(kind="datetime", format=format), [])
        if pc.sum(cast.is_fault).as_py() <= allowed:
            fitting.append(format)
    return fitting[0] if len(fitting) == 1 else None


def _list_likely_formats(sample: pa.Array) -> list[str]:
    """Return the formats that read at least half of a few values; only they are worth trying on all."""
    likely = []
    for format in (ISO, *DATE_FORMATS, *SLASH_FORMATS):
        cast = cast_column(sample, Column(kind="datetime", format=format), [])
        if 2 * pc.sum(cast.is_fault).as_py() <= len(sample):
            likely.append(format)
    return likely


def _find_uselessness(name: str, column: Column, values: pa.Array) -> str | None:
    """Return why a model cannot learn from a column, or None."""
    kind, distinct, count = column.kind, pc.count_distinct(values).as_py(), len(values)
    if distinct == 1 and not column.nullable:  # beside missing values, one value still says: present
        return "every value is the same"
    if kind == "text":
        return "free text is not encoded"
    if count < MIN_ROWS_FOR_ID:
        return None
    if kind == "category" and distinct == count:
        return "every value is different, as in an id"
    if kind == "category" and distinct > 0.9 * count:
        return f"almost every value is different ({distinct:,} of {count:,})"
    if kind == "integer" and distinct > 0.9 * count and _ID_NAME.search(name):
        return f"almost every value is different ({distinct:,} of {count:,}), as in an id"
    if kind == "integer" and distinct == count and pc.max(values).as_py() - pc.min(values).as_py() + 1 == count:
        return "every value is different, as in an id"
    return None


def describe_column(column: Column, values: pa.Array) -> Column:
    """Return the column with its range or categories and an example, all taken from the values."""
    update: dict[str, object] = {}
    if column.kind == "category":
        categories = sorted(pc.unique(values).to_pylist())
        if len(categories) <= MAX_CATEGORIES_LISTED and column.role in ("feature", "target"):
            update["categories"] = categories
    elif column.kind in ("number", "integer", "datetime"):
        low, high = pc.min(values).as_py(), pc.max(values).as_py()
        is_date = column.kind == "datetime"
        update |= {"min": low.isoformat() if is_date else low, "max": high.isoformat() if is_date else high}
    return column.model_copy(update=update)


def infer_target(guess: Column, texts: pa.Array, missing: list[str], task: str) -> tuple[Column, Task]:
    """Return the target's contract entry and the task that follows from it.

    Parameters
    ----------
    guess : what `infer_column` says of the target's values
    texts : (n_rows,) string, trimmed
    missing : the texts that mean missing
    task : regression or classification to decide it, auto to find it out

    Raises
    ------
    ValueError : the values do not allow the task
    """
    present = texts.filter(pc.invert(pc.is_in(texts, value_set=pa.array(missing, pa.string()))))
    if not len(present):
        raise ValueError("every value is missing")
    numeric = guess.kind in ("number", "integer")
    distinct = pc.count_distinct(cast_column(present, guess, []).values).as_py()
    if not distinct:
        raise ValueError("no value is a finite number of at most 1e30")
    if distinct < 2:
        raise ValueError("every value is the same, so there is nothing to predict")
    is_class = not numeric or distinct == 2 or (guess.kind == "integer" and distinct <= MAX_INTEGER_CLASSES)
    if task == "regression" and not numeric:
        raise ValueError(f"a regression needs numbers, got values of kind {guess.kind}")
    if task == "regression" or (task == "auto" and not is_class):
        return _as_target(guess, "number" if guess.kind == "number" else "integer", present), "regression"
    if distinct > MAX_CLASSES or 2 * distinct > len(present):
        raise ValueError(f"{distinct:,} different values in {len(present):,} rows are too many to be classes")
    is_whole = numeric and _count(present, INTEGER) == len(present)
    kind: Kind = "integer" if is_whole else "category"
    return _as_target(guess, kind, present), "binary" if distinct == 2 else "multiclass"


def _as_target(guess: Column, kind: Kind, present: pa.Array) -> Column:
    role: Role = "target"
    decimal = guess.decimal if kind == "number" else None
    column = Column(kind=kind, role=role, nullable=guess.nullable, decimal=decimal)
    return describe_column(column, cast_column(present, column, []).values.drop_null())


def add_examples(columns: dict[str, Column], table: pa.Table, missing: list[str]) -> dict[str, Column]:
    """Return the columns with the values of one real row, the most complete of the first thousand.

    Parameters
    ----------
    columns : the columns' contract entries
    table : the file as texts
    missing : the texts that mean missing
    """
    head = table.slice(0, 1000).combine_chunks()
    typed = {name: cast_column(head[name].combine_chunks(), column, missing).values for name, column in columns.items()}
    best = max(pa.table(typed).to_pylist(), key=lambda row: sum(value is not None for value in row.values()))
    examples = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in best.items()}
    return {name: column.model_copy(update={"example": examples[name]}) for name, column in columns.items()}


def merge_edits(inferred: Contract, current: Contract, edited: list[str]) -> tuple[Contract, list[str]]:
    """Return the inferred contract in which what somebody edited stands as edited, and which edits found a place.

    Parameters
    ----------
    inferred : made anew from the file
    current : the contract on disk
    edited : what `find_edited` says of it
    """
    columns, kept = dict(inferred.columns), []
    for name in edited:
        mine = current.columns.get(name)
        if name in columns and mine is not None and (mine.role == "target") == (name == inferred.target):
            columns[name] = mine
            kept.append(name)
    update: dict[str, object] = {"columns": columns}
    if WHOLE_FILE in edited:
        kept.append(WHOLE_FILE)
        update["missing"] = current.missing
        if current.source == inferred.source:
            update["separator"] = current.separator
        if current.target == inferred.target:
            update["task"] = current.task
    return inferred.model_copy(update=update), kept
