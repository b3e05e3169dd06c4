"""How many rows of a source were read and set aside, and when there are too many or too few of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_ingestion.handoff import PipelineError
from data_ingestion.validation import SHOWN, TARGET_MISSING, Reject

MAX_NAMED = 10  # kinds of faults
_GOT = ", got "  # in a reason, between what was expected and what was found


@dataclass
class Tally:
    """How many rows were read, and how many set aside for what reason.

    Parameters
    ----------
    rows, kept : all, and those that fit
    without_target, faults : those set aside
    too_long : faults that have more fields than the header
    by_rule : the faults of each column and rule: how many, and the first five
    """

    rows: int = 0
    kept: int = 0
    without_target: int = 0
    faults: int = 0
    too_long: int = 0
    by_rule: dict[tuple[str | None, str], tuple[int, list[Reject]]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """How many were set aside."""
        return self.rows - self.kept

    def add(self, rows: int, rejects: Sequence[Reject]) -> None:
        """Take in the next block."""
        self.rows += rows
        self.kept += rows - len(rejects)
        for reject in rejects:
            if reject.reason == TARGET_MISSING:
                self.without_target += 1
                continue
            self.faults += 1
            self.too_long += reject.column is None and _has_too_many(reject.reason)
            rule, _, _ = reject.reason.partition(_GOT)
            count, first = self.by_rule.get((reject.column, rule), (0, []))
            self.by_rule[reject.column, rule] = (count + 1, first if count >= SHOWN else [*first, reject])

    def describe_faults(self, source: str) -> list[str]:
        """Return for each column and rule the first five faults, and how many more there are."""
        lines = []
        for count, (first, *others) in self.by_rule.values():
            said = [f"{name_line(first, source)}: {first.reason}"]
            said += [f"{name_line(other, source)}: {_shorten(other.reason)}" for other in others]
            lines.append("; ".join(said) + (f" (+{count - SHOWN:,} more)" if count > SHOWN else ""))
        return lines


def _shorten(reason: str) -> str:
    """Return what was got, where it is known already what was expected."""
    _, got, what = reason.partition(_GOT)
    return got.removeprefix(", ") + what if got else reason


def _has_too_many(reason: str) -> bool:
    """Return whether a record was set aside for having more fields than the header."""
    expected, got = (int(number) for number in re.findall(r"\d+", reason))
    return got > expected


def check_limits(
    tally: Tally, target: str, source: str, max_rejected: float, max_missing_target: float, min_rows: int
) -> None:
    """Raise when too many rows are at fault, too many targets are missing, or too few rows are left.

    Parameters
    ----------
    tally : the outcome of the load
    target, source : the names of the column and the file
    max_rejected, max_missing_target : shares of all rows
    min_rows : how many usable rows there must be
    """
    check_faults(tally, source, max_rejected)
    if tally.without_target > max_missing_target * tally.rows:
        raise PipelineError(
            f'{source}: the target "{target}" is missing in {tally.without_target:,} of {tally.rows:,} rows, more than '
            f"max_missing_target ({max_missing_target:.0%}) allows. Fill it, or raise --max-missing-target."
        )
    check_row_count(tally.kept, source, min_rows)


def check_faults(tally: Tally, source: str, max_rejected: float) -> None:
    """Raise when a larger share of the rows than `max_rejected` is at fault, naming the first of each kind."""
    if tally.faults <= max_rejected * tally.rows:
        return
    shown = ". ".join(tally.describe_faults(source)[:MAX_NAMED])
    left = len(tally.by_rule) - MAX_NAMED
    more = f" ({left:,} faults of other kinds)" if left > 0 else ""
    repair = "Mend them, edit data/schema.yaml (kind, missing, nullable), or raise --max-rejected."
    if 2 * tally.too_long > tally.rows:
        repair = (
            "If numbers are written with a decimal comma, save the file with another separator, or with quotes around "
            "such numbers."
        )
    raise PipelineError(
        f"{source}: {tally.faults:,} of {tally.rows:,} rows are at fault, more than max_rejected "
        f"({max_rejected:.2%}) allows. {shown}{more}. {repair}"
    )


def name_line(reject: Reject, source: str) -> str:
    """Return where a reject stands; its file is named when the source holds several."""
    return f"line {reject.line}" if reject.file == source else f"{reject.file} line {reject.line}"


def check_row_count(count: int, source: str, min_rows: int) -> None:
    """Raise when there are too few rows to learn anything from."""
    if count < min_rows:
        raise PipelineError(
            f"{source}: {count} usable rows, expected at least {min_rows}. Add rows, or lower --min-rows (5 at least)."
        )


def check_target(target_distinct: int, target: str, source: str) -> None:
    """Raise when the target is the same in every usable row."""
    if target_distinct < 2:
        raise PipelineError(
            f'{source}: the target "{target}" has the same value in every usable row, so there is '
            "nothing to predict. Name another: --target COLUMN"
        )
