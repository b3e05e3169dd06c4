"""The first pass over the rows: who trains and who tests, a stable sample to learn from, and what the leak audit needs.

Everything is decided by a row's values or by its place, so neither the size of the row groups nor the number of threads
changes the outcome. Keeps two bytes a row, eight more where duplicates may straddle, and the sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_ingestion.row_groups import RowGroups, map_groups
from data_ingestion.row_hash import Hashes, hash_places, hash_rows, is_below, mix
from data_ingestion.schema import Contract
from data_ingestion.splitter import SIDES, TRAIN, Split

MAX_SAMPLE_ROWS = 1_000_000  # up to so many rows, all are learnt from
MAX_AUDIT_ROWS = 20_000  # more rows move no figure of the leak audit across its limit
MAX_CONTENTS = 16_000_000  # up to so many rows, all are looked at for duplicates across the split
MAX_COUNTED = 2_000_000  # and where none can stand across it, to be counted
N_FOLDS = 5  # of the cross-fitting of target means
_HALF = np.uint64(32)  # bits: a share of N_FOLDS is quicker than a remainder
_FOLD_SALT = np.uint64(0x6A09_E667_F3BC_C909)


@dataclass(frozen=True)
class Scan:
    """What one pass over the rows found.

    Parameters
    ----------
    sides : (n_rows,) side of each row, a place in splitter.SIDES
    folds : (n_rows,) fold of each row; rows that stand together in the split stand together here
    contents : (n_contents,) hash of features and target of the rows looked at for duplicates: all up to MAX_CONTENTS
        (MAX_COUNTED where the split itself keeps them together), beyond that all copies of a stable share of them
    content_sides : (n_contents,) on which side each of them stands
    share : the share of the contents that is looked at
    """

    sides: NDArray[np.uint8]
    folds: NDArray[np.uint8]
    contents: Hashes
    content_sides: NDArray[np.uint8]
    share: float

    def count_repeats(self) -> int:
        """Return how many rows are exact copies of an earlier one; an estimate where not all are looked at."""
        ordered = np.sort(self.contents)
        return round(int(np.count_nonzero(ordered[1:] == ordered[:-1])) / self.share)

    def count_sides(self) -> dict[str, int]:
        """Return the number of rows on each side."""
        return {name: int(np.count_nonzero(self.sides == side)) for side, name in enumerate(SIDES)}

    def find_places(self, start: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int16]]:
        """Return the sides of `count` rows, and their folds, -1 for those that do not train."""
        rows = slice(start, start + count)
        return self.sides[rows], np.where(self.sides[rows] == TRAIN, self.folds[rows], np.int16(-1))


@dataclass(frozen=True)
class Sample:
    """A stable sample of the rows: all of them up to MAX_SAMPLE_ROWS.

    Parameters
    ----------
    table : every column that is not ignored, rows in order
    places : (n_sample,) the places of these rows among all
    """

    table: pa.Table
    places: NDArray[np.int64]

    def find_train(self, scan: Scan) -> tuple[pa.Table, NDArray[np.uint8]]:
        """Return the train rows, and their folds."""
        is_train = scan.sides[self.places] == TRAIN
        return self.table.filter(pa.array(is_train)), scan.folds[self.places[is_train]]

    def find_audited(self, seed: int) -> pa.Table:
        """Return the rows to look at for leaks, at most MAX_AUDIT_ROWS."""
        keys = mix(self.places.astype(np.uint64) + np.uint64(seed))
        chosen = np.sort(np.argsort(keys, kind="stable")[:MAX_AUDIT_ROWS])
        return self.table.take(pa.array(chosen))


def scan_rows(groups: RowGroups, contract: Contract, split: Split, threads: int | None = None) -> tuple[Scan, Sample]:
    """Read all rows once; see `Scan` and `Sample`.

    Parameters
    ----------
    groups : the typed rows
    contract : their columns
    split : decides the sides
    threads : None means one per core
    """
    seed, n_rows = split.request.seed, max(1, groups.num_rows)
    names = [name for name, column in contract.columns.items() if column.role != "ignored"]
    content = [*contract.features, contract.target]
    can_straddle = not set(split.decisive) <= set(content)
    share = min(1.0, (MAX_CONTENTS if can_straddle else MAX_COUNTED) / n_rows)

    def scan_group(start: int, table: pa.Table) -> tuple[Scan, Sample]:
        sides, keys = split.assign(table)
        contents = keys if set(split.decisive) == set(content) else hash_rows(table, content, seed)
        is_looked_at = is_below(contents, share)
        folds = (((mix(keys ^ _FOLD_SALT) >> _HALF) * np.uint64(N_FOLDS)) >> _HALF).astype(np.uint8)
        places = np.flatnonzero(is_below(hash_places(start, table.num_rows, seed), MAX_SAMPLE_ROWS / n_rows))
        sample = Sample(drop_levels(table.select(names).take(pa.array(places))), places + start)
        return Scan(sides, folds, contents[is_looked_at], sides[is_looked_at], share), sample

    columns = list(dict.fromkeys([*names, *split.names, *split.decisive]))
    scans, samples = zip(*map_groups(groups, columns, scan_group, "splitting", threads), strict=True)
    return _join_scans(scans), _join_samples(samples)


def drop_levels(table: pa.Table) -> pa.Table:
    """Return plain texts for dictionaries: a few rows must not hold on to those of a row group."""
    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))


def _join_scans(scans: Sequence[Scan]) -> Scan:
    return Scan(
        sides=np.concatenate([scan.sides for scan in scans]),
        folds=np.concatenate([scan.folds for scan in scans]),
        contents=np.concatenate([scan.contents for scan in scans]),
        content_sides=np.concatenate([scan.content_sides for scan in scans]),
        share=scans[0].share,
    )


def _join_samples(samples: Sequence[Sample]) -> Sample:
    table = pa.concat_tables([sample.table for sample in samples])
    return Sample(table, np.concatenate([sample.places for sample in samples]))
