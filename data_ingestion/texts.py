"""The distinct texts of a column with their counts, and what their forms say of it."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_ingestion.casting import INTEGER, NUMBER

_LEADING_ZERO = r"^0\d"
_LONG = r"^[+-]?\d{19,}$"
_EXPONENT = r"^\d+[eE]\d+$"
_DECIMAL = r"[.eE]"


@dataclass(frozen=True)
class Forms:
    """How many values of a column are written how; several columns' worth add up.

    Parameters
    ----------
    present : values that are not missing
    numbers : written as numbers
    integers : written as integers of at most 18 digits, 3.0 among them
    decimals : numbers with a point or an exponent
    exponents : such as 1e5
    long : integers of more than 18 digits
    zero_led : such as 007
    """

    present: int = 0
    numbers: int = 0
    integers: int = 0
    decimals: int = 0
    exponents: int = 0
    long: int = 0
    zero_led: int = 0

    def __add__(self, other: "Forms") -> "Forms":
        return Forms(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Texts:
    """The texts of a column that are not missing.

    Parameters
    ----------
    values : (n_distinct,) string, trimmed
    counts : (n_distinct,) how often each stands there
    """

    values: pa.Array
    counts: NDArray[np.int64]

    @property
    def total(self) -> int:
        """How many there are."""
        return int(self.counts.sum())

    def count(self, pattern: str) -> int:
        """Return how many match a pattern."""
        return self.count_where(pc.match_substring_regex(self.values, pattern))

    def count_where(self, mask: pa.Array) -> int:
        """Return how many stand for a mask over the distinct ones."""
        return int(self.counts[np.asarray(mask)].sum())

    def count_forms(self) -> Forms:
        """Return how many are written how."""
        is_number = pc.match_substring_regex(self.values, NUMBER)
        return Forms(
            present=self.total,
            numbers=self.count_where(is_number),
            integers=self.count(INTEGER),
            decimals=self.count_where(pc.and_(is_number, pc.match_substring_regex(self.values, _DECIMAL))),
            exponents=self.count(_EXPONENT),
            long=self.count(_LONG),
            zero_led=self.count(_LEADING_ZERO),
        )


def count_texts(texts: pa.Array, missing: list[str]) -> Texts:
    """Return the distinct texts that are not missing.

    Parameters
    ----------
    texts : string, or a dictionary without the same text twice, trimmed; null counts as missing
    missing : the spellings that mean missing
    """
    if pa.types.is_dictionary(texts.type):
        values = texts.dictionary
        places = np.asarray(texts.indices.drop_null())
        counts = np.bincount(places, minlength=len(values)).astype(np.int64)
    else:
        found = texts.drop_null().value_counts()
        values, counts = found.field("values"), np.asarray(found.field("counts"), dtype=np.int64)
    kept = counts > 0
    if missing:
        kept &= ~np.asarray(pc.is_in(values, value_set=pa.array(missing, pa.string())))
    return Texts(values, counts) if kept.all() else Texts(values.filter(pa.array(kept)), counts[kept])


def merge_texts(parts: list[Texts]) -> Texts:
    """Return the texts of several pieces of a column."""
    values = pa.concat_arrays([part.values for part in parts]).dictionary_encode()
    counts = np.concatenate([part.counts for part in parts])
    sums = np.bincount(np.asarray(values.indices), weights=counts, minlength=len(values.dictionary))
    return Texts(values.dictionary, sums.astype(np.int64))  # exact: counts stay far below 2^53
