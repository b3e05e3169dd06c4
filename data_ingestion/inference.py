"""What the columns of a CSV hold, found out over the whole file.

A guess from a few pieces of the file says how to read it; reading it counts what each column really holds; and
what that confirms becomes the contract. Where that is something else than the guess, the file is read again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from data_ingestion.handoff import PipelineError
from data_ingestion.kinds import COMMA, MAX_TOLERATED, Guess, guess_kind, guess_number, has_points_between_thousands
from data_ingestion.params import suggest
from data_ingestion.profiling import Profile
from data_ingestion.schema import WHOLE_FILE, Column, Contract, Kind, Task, join_names
from data_ingestion.texts import Texts, count_texts

MAX_CATEGORIES_LISTED = 1000
MAX_INTEGER_CLASSES = 10
MAX_CLASSES = 100
MIN_ROWS_FOR_ID = 20
_ID_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index|rownum)$|[a-z]I[dD]$", re.IGNORECASE)


def guess_columns(texts: Mapping[str, Texts], target: str, task: str, tolerated: float) -> dict[str, Guess]:
    """Return a first guess at every column, from the texts of a few pieces of the file.

    Parameters
    ----------
    texts : the present texts by column
    target : the column to predict
    task : regression or classification to decide it, auto to find it out
    tolerated : the share of present values that may fail to read as the kind
    """
    guesses = {name: guess_kind(column, tolerated) for name, column in texts.items()}
    if any(guess.column.decimal == "," for guess in guesses.values()):
        grouped = [name for name, column in texts.items() if has_points_between_thousands(column, tolerated)]
        why = "its points are read as set between thousands, for another column has a decimal comma"
        guesses |= {name: Guess(COMMA, why) for name in grouped if guesses[name].column.decimal is None}
    found = texts[target]
    is_whole = found.count_forms().integers == found.total
    guesses[target] = replace(
        guesses[target], column=_choose_target_kind(guesses[target].column, len(found.values), is_whole, task)
    )
    return guesses


def build_guess(guesses: Mapping[str, Guess], source: str, target: str) -> Contract:
    """Return the contract to read the file by for the first time: it knows kinds, and nothing of values."""
    columns = {
        name: guess.column.model_copy(update={"role": "target" if name == target else "feature", "reason": None})
        for name, guess in guesses.items()
    }
    columns |= {n: c.model_copy(update={"kind": "category"}) for n, c in columns.items() if c.kind == "text"}
    task: Task = "multiclass" if columns[target].kind == "category" else "regression"
    if len(columns) == 1:
        raise PipelineError(f'{source} holds nothing but its target "{target}". Give it more columns.')
    return Contract(source=source, target=target, task=task, columns=columns)


def confirm_column(name: str, guess: Guess, profile: Profile, tolerated: float, task: str | None) -> Guess:
    """Return what a column is by all its values; equal to the guess where that was right.

    Parameters
    ----------
    name : the column
    guess : what it was read as
    profile : what that reading found
    tolerated : the share of present values that may fail to read as the kind
    task : what is asked of a target; None for other columns
    """
    facts = profile.facts[name]
    is_number = guess.column.kind in ("number", "integer")
    confirmed = _confirm(name, guess, profile, tolerated)
    if task is None or (facts.levels is None and not is_number):
        return confirmed
    forms = facts.forms if is_number else facts.levels.count_forms()  # type: ignore[union-attr]
    is_whole = forms.integers == forms.present
    column = _choose_target_kind(confirmed.column, profile.count_distinct(name), is_whole, task)
    return replace(confirmed, column=column)


def _confirm(name: str, guess: Guess, profile: Profile, tolerated: float) -> Guess:
    """Return the kind of a column by all its values, or by those of the sample where there are too many texts."""
    facts = profile.facts[name]
    column, allowed = guess.column, min(tolerated, MAX_TOLERATED) * facts.present
    if column.kind in ("category", "boolean", "text"):
        return guess_kind(facts.levels or count_texts(profile.sample[name].combine_chunks(), []), tolerated)
    if column.kind in ("number", "integer") and column.decimal is None:
        found = guess_number(facts.forms, allowed) or Guess(Column(kind="category"))
        # Where it was read as numbers, nobody counted the points, and one was seen before.
        return guess if column.kind == "number" and found.column.kind == "integer" else found
    return guess if facts.faults <= allowed else Guess(Column(kind="category"))


def _choose_target_kind(column: Column, distinct: int, is_whole: bool, task: str) -> Column:
    """Return the target's entry: numbers for a regression, whole numbers or texts for classes."""
    numeric = column.kind in ("number", "integer")
    is_class = not numeric or distinct == 2 or (column.kind == "integer" and distinct <= MAX_INTEGER_CLASSES)
    if task == "regression" or (task == "auto" and not is_class):
        kind: Kind = column.kind if numeric else "category"
        return Column(kind=kind, decimal=column.decimal if kind == "number" else None)
    return Column(kind="integer" if numeric and is_whole else "category")


def complete_contract(
    guesses: Mapping[str, Guess], profile: Profile, source: str, target: str, task: str, fixed: Sequence[str] = ()
) -> tuple[Contract, list[str]]:
    """Return the contract that follows from reading the whole file, and remarks on what was not obvious.

    Raises
    ------
    PipelineError : the target's values allow no task, or no column is left to learn from
    """
    columns: dict[str, Column] = {}
    remarks: dict[str, list[str]] = {}  # the columns that each is due to
    for name, guess in guesses.items():
        is_open = name not in fixed  # what was edited stays as it is
        columns[name] = describe_column(name, guess.column, profile, name == target) if is_open else guess.column
        if guess.remark and (name != target or guess.column.kind == "number"):
            remarks.setdefault(guess.remark, []).append(name)
    notes = [
        f"{'column' if len(names) == 1 else 'columns'} {join_names(names)}: {remark}"
        for remark, names in remarks.items()
    ]
    try:
        found = decide_task(columns[target], profile, target, task)
    except ValueError as err:
        raise PipelineError(f'{source}: column "{target}" cannot be the target: {err}. Name another.') from err
    if not any(column.role == "feature" for column in columns.values()):
        kept = {name: column for name, column in columns.items() if _may_be_id(column)}
        columns |= {n: c.model_copy(update={"role": "feature", "reason": None}) for n, c in kept.items()}
        notes += (
            [f"column {join_names(list(kept))}: looks like an id, and nothing else is left to learn from"]
            if kept
            else []
        )
    if not any(column.role == "feature" for column in columns.values()):
        why = "; ".join(f'"{name}": {column.reason}' for name, column in columns.items() if column.reason)
        raise PipelineError(f"{source}: no column is left to learn from ({why}). Give it more columns or rows.")
    return Contract(source=source, target=target, task=found, columns=add_examples(columns, profile.head)), notes


def _may_be_id(column: Column) -> bool:
    """Return whether a column was left out as an id though its values have an order, as years have."""
    return column.kind == "integer" and column.reason is not None and column.reason.endswith("as in an id")


def describe_texts_read(names: Sequence[str], contract: Contract) -> list[str]:
    """Return a note on texts of a table that are read as something else, as postcodes may not be meant."""
    read = [name for name in names if contract.columns[name].kind in ("number", "integer")]
    found = [name for name in read if contract.columns[name].role == "feature"]
    if not found:
        return []
    return [f"{join_names(found)}: texts in the table, read as numbers; to keep them as they are, write kind: category"]


def describe_words_for_missing(texts: Mapping[str, pa.Array]) -> list[str]:
    """Return a note on each spelling of missing that may have been meant as a value."""
    notes = []
    for word in ("None", "null", "NULL", "?"):
        found = [name for name, values in texts.items() if pc.any(pc.equal(values, word)).as_py()]
        if found:
            keep = "if it is a value there, write missing without it in data/schema.yaml"
            notes.append(f'"{word}" means missing, as in {join_names(found)}; {keep}')
    return notes


def describe_column(name: str, column: Column, profile: Profile, is_target: bool) -> Column:
    """Return a column with its role, its range or categories, and the share of missing values."""
    facts = profile.facts[name]
    update: dict[str, object] = {"role": "target" if is_target else column.role, "nullable": facts.missing > 0}
    update["missing_share"] = round(facts.missing / facts.rows, 6) if facts.missing else None
    reason = None if is_target else _find_uselessness(name, column, profile)
    if reason is not None:
        update |= {
            "role": "ignored",
            "reason": reason,
            "kind": "text" if _is_prose(column, profile, name) else column.kind,
        }
    levels = facts.levels
    if column.kind == "category" and reason is None and levels is not None:
        if len(levels.values) <= MAX_CATEGORIES_LISTED:
            update["categories"] = sorted(levels.values.to_pylist())
    elif column.kind in ("number", "integer", "datetime") and facts.low is not None:
        bounds = [value.isoformat() if hasattr(value, "isoformat") else value for value in (facts.low, facts.high)]
        update |= {"min": bounds[0], "max": bounds[1]}
    return column.model_copy(update=update)


def _is_prose(column: Column, profile: Profile, name: str) -> bool:
    """Return whether texts are long and hardly repeat."""
    if column.kind != "category":
        return column.kind == "text"
    values = profile.sample[name].combine_chunks().drop_null()
    mean_length = pc.mean(pc.utf8_length(values)).as_py() or 0
    return bool(mean_length > 40 and 2 * profile.count_distinct(name) > profile.facts[name].present)


def _find_uselessness(name: str, column: Column, profile: Profile) -> str | None:
    """Return why a model cannot learn from a column, or None."""
    facts, kind, distinct = profile.facts[name], column.kind, profile.count_distinct(name)
    count = facts.present - facts.faults
    if not facts.present:
        return "every value is missing"
    if distinct == 1 and not facts.missing:  # beside missing values, one value still says: present
        return "every value is the same"
    if _is_prose(column, profile, name):
        return "free text is not encoded"
    if count < MIN_ROWS_FOR_ID:
        return None
    about = "" if profile.is_whole or facts.levels is not None else "about "
    if kind == "category" and distinct == count:
        return "every value is different, as in an id"
    if kind == "category" and distinct > 0.9 * count:
        return f"almost every value is different ({about}{distinct:,} of {count:,})"
    if kind == "integer" and distinct > 0.9 * count and _ID_NAME.search(name):
        return f"almost every value is different ({about}{distinct:,} of {count:,}), as in an id"
    if kind == "integer" and distinct == count and facts.high - facts.low + 1 == count:  # type: ignore[operator]
        return "every value is different, as in an id"
    return None


def decide_task(column: Column, profile: Profile, target: str, task: str) -> Task:
    """Return the task that follows from the target's values.

    Raises
    ------
    ValueError : the values do not allow the task
    """
    facts, distinct = profile.facts[target], profile.count_distinct(target)
    if not facts.present:
        raise ValueError("every value is missing")
    numeric = column.kind in ("number", "integer")
    if not distinct:
        raise ValueError("no value is a finite number of at most 1e30")
    if distinct < 2:
        raise ValueError("every value is the same, so there is nothing to predict")
    is_class = not numeric or distinct == 2 or (column.kind == "integer" and distinct <= MAX_INTEGER_CLASSES)
    if task == "regression" and not numeric:
        raise ValueError(f"a regression needs numbers, got values of kind {column.kind}")
    if task == "regression" or (task == "auto" and not is_class):
        return "regression"
    if distinct > MAX_CLASSES or 2 * distinct > facts.present:
        raise ValueError(f"{distinct:,} different values in {facts.present:,} rows are too many to be classes")
    return "binary" if distinct == 2 else "multiclass"


def add_examples(columns: Mapping[str, Column], head: pa.Table) -> dict[str, Column]:
    """Return the columns with the values of one real row, the most complete of the first thousand."""
    rows = head.to_pylist()
    best = max(rows, key=lambda row: sum(value is not None for value in row.values())) if rows else {}
    examples = {name: v.isoformat() if hasattr(v, "isoformat") else v for name, v in best.items()}
    return {name: column.model_copy(update={"example": examples.get(name)}) for name, column in columns.items()}


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


def check_is_column(target: str, names: list[str], source: str) -> None:
    """Raise when the target is not among the columns."""
    if target not in names:
        raise PipelineError(f'{source}: there is no column "{target}".{suggest(target, names)} Use --target COLUMN')
