"""The columns and the size of a table that somebody sends, against the contract."""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches

from app.errors import ApiError, ErrorList, clean_name
from app.model_host import Served
from app.rows.bodies import refuse

ANSWERS = ("prediction", "prediction_id", "model_version", "warnings", "error")  # beside what depends on the model


def check_header(names: Sequence[str], served: Served, keep: bool) -> None:
    """Raise unless a table has all features, each once, and no column that the contract does not know.

    Parameters
    ----------
    names : of the columns
    served : the model
    keep : whether columns are kept in the answer: then others may be there, but none that the answer adds

    Raises
    ------
    ApiError : 422 naming the columns
    """
    errors = ErrorList()
    columns = served.contract.columns
    unknown = [name for name in dict.fromkeys(names) if name not in columns]
    for name in served.contract.features:
        if name not in names:
            near = get_close_matches(name, unknown, n=1)
            errors.add("missing", "is required" + (f'; is "{clean_name(near[0])}" meant?' if near else ""), name)
    for name, count in Counter(names).items():
        if count > 1:
            errors.add("duplicate_column", "stands twice", name)
    for name in unknown if not keep else ():
        errors.add("unknown_field", "is not in the contract; see /schema", name)
    for name in list_answers(served) if keep else ():
        if name in names:
            errors.add("reserved_column", "has the name of a column of the answer; rename it", name)
    if errors.total:
        raise ApiError(422, "The columns are not as expected; see errors.", errors)


def list_answers(served: Served) -> list[str]:
    """Return the names of the columns that an answer adds to a table."""
    uncertainty = served.model.manifest.uncertainty
    bounds = {"intervals": ["low", "high"], "sets": ["prediction_set"]}
    added = bounds[uncertainty.kind] if uncertainty is not None else []
    return ["prediction", *(f"probability_{label}" for label in served.labels), *added, *ANSWERS[1:]]


def refuse_count(n_rows: int, max_rows: int, is_all: bool = True) -> ApiError:
    """Return the 422 for a batch of too many rows or none.

    Parameters
    ----------
    n_rows : that there are, or that were counted before it was given up
    max_rows : the longest batch
    is_all : whether they are all
    """
    said = f"{n_rows:,} rows" if is_all else f"more than {max_rows:,} rows"
    return refuse("array_length", f"The batch has {said}", f"expects 1 to {max_rows:,} rows")
