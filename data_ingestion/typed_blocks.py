"""From a block of records to typed columns: as Arrow reads them where that is what the contract means, else with care.

Arrow's own conversion is several times as fast as casting texts, but it also takes what is no number of ours (inf,
0x1F) and says nothing of what it refuses. So its values are checked, and whatever fails is cast text by text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from data_ingestion import casting
from data_ingestion.csv_reader import Block, check_encoding
from data_ingestion.handoff import PipelineError
from data_ingestion.schema import ISO, MAX_NUMBER, Column, Contract
from data_ingestion.zero_led import find_zero_led

LEVELS = pa.dictionary(pa.int32(), pa.string())
_TEXTS = (pa.string(), LEVELS)
MAX_INTEGER = 10**18 - 1  # 18 digits
_FIRST_MOMENT = -62_135_596_800_000_000  # year 1, in microseconds since 1970


@dataclass(frozen=True)
class Layout:
    """How the columns of a contract are read.

    Parameters
    ----------
    contract : the columns
    without_levels : columns of texts that hardly ever repeat
    finds_zeros : whether numbers with leading zeros are looked for, as inference must
    careful : columns that hold texts which Arrow does not read; grows while reading, and changes speed alone, because
        what Arrow does read it reads as the contract means, see `is_read_by_arrow` and `may_be_values`
    """

    contract: Contract
    without_levels: frozenset[str] = frozenset()
    finds_zeros: bool = False
    careful: set[str] = field(default_factory=set)

    @cached_property
    def missing(self) -> list[str]:
        """The spellings that mean missing in every column, as they may stand in a file, with a blank beside them."""
        shared = set.intersection(*(set(self.contract.missing_spellings(name)) for name in self.contract.columns))
        return sorted({form for text in shared for form in (text, f" {text}", f"{text} ")})

    def read_type(self, name: str) -> pa.DataType:
        """Return the type that Arrow reads a column as."""
        if name in self.careful or name not in self._numeric_types:
            return pa.string() if name in self.without_levels else LEVELS
        return self._numeric_types[name]

    @cached_property
    def _numeric_types(self) -> dict[str, pa.DataType]:
        """The types of the columns that Arrow may convert."""
        return {
            name: casting.arrow_type(column)
            for name, column in self.contract.columns.items()
            if is_read_by_arrow(column) and not may_be_values(column, self.contract.missing_spellings(name))
        }


def is_read_by_arrow(column: Column) -> bool:
    """Return whether Arrow's conversion of a column may be what the contract means."""
    if column.kind == "datetime":
        return column.format in (None, ISO)
    return column.kind == "integer" or (column.kind == "number" and casting.is_plain_number(column))


def may_be_values(column: Column, missing: Sequence[str]) -> bool:
    """Return whether a spelling of missing reads as a value: Arrow would take it for one where blanks surround it."""
    values = casting.cast_column(pa.array(missing, pa.string()), column, [""]).values
    return bool(len(values) > values.null_count)


@dataclass(frozen=True)
class Misfit:
    """A record with too many or too few fields; the first of a block is number 1."""

    number: int
    reason: str


@dataclass(frozen=True)
class TypedColumn:
    """A column of one block.

    Parameters
    ----------
    values : (n_rows,) typed, texts as a dictionary where they have levels; null where missing or at fault
    texts : (n_rows,) as written, trimmed; None where Arrow read the values and none is at fault
    is_fault : (n_rows,) bool; None when no value is at fault
    expected : what the column expects, in words
    """

    values: pa.Array
    texts: pa.DictionaryArray | None = None
    is_fault: pa.Array | None = None
    expected: str = ""

    @cached_property
    def ends(self) -> pa.Array:
        """The lowest and the highest value, (2,) as `values`: null where there is none, NaN where a number is."""
        if pa.types.is_floating(self.values.type):  # NumPy takes a tenth of the time
            numbers = self.values.drop_null().to_numpy()
            return pa.array([numbers.min(), numbers.max()] if len(numbers) else [None, None], self.values.type)
        found = pc.min_max(self.values)
        return pa.array([found["min"], found["max"]], self.values.type)


@dataclass(frozen=True)
class TypedBlock:
    """A block of records as typed columns, and the records that have other fields than the header."""

    columns: dict[str, TypedColumn]
    num_rows: int
    misfits: list[Misfit]


def read_block(block: Block, layout: Layout) -> TypedBlock:
    """Return the columns of the contract that a block has, typed.

    Raises
    ------
    PipelineError : it is not UTF-8, or no CSV that Arrow can read
    """
    names = [name for name in layout.contract.columns if name in block.header]
    types = {name: layout.read_type(name) for name in names}
    misfits: list[Misfit] = []
    try:
        table = _parse(block, types, layout.missing, misfits)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        doubtful = [name for name, kind in types.items() if kind not in _TEXTS]
        misfits = []
        texts = table = _parse_texts(block, types | dict.fromkeys(doubtful, LEVELS), layout.missing, misfits)
        read = {}
    else:
        read = {name: TypedColumn(_join(table[name])) for name in names if types[name] not in _TEXTS}
        doubtful = _find_doubtful(block, read, table.num_rows, bool(misfits), layout)
        texts = _parse_texts(block, dict.fromkeys(doubtful, LEVELS), layout.missing, []) if doubtful else table
    columns: dict[str, TypedColumn] = {}
    for name in names:
        column, missing = layout.contract.columns[name], layout.contract.missing_spellings(name)
        if name in doubtful:
            levels = _join(texts[name])
            if not _can_cast(levels, types[name]):
                layout.careful.add(name)
            columns[name] = _read_texts(levels, column, missing)
        elif types[name] in _TEXTS:
            columns[name] = _read_texts(_join(table[name]), column, missing)
        else:
            columns[name] = read[name]
    return TypedBlock(columns, table.num_rows, misfits)


def read_texts(block: Block, names: Sequence[str]) -> dict[str, pa.Array]:
    """Return columns of a block as trimmed texts; records that do not fit are passed over."""
    table = _parse_texts(block, dict.fromkeys(names, pa.string()), [], [])
    return {name: pc.utf8_trim_whitespace(_join(table[name])) for name in names}


def _can_cast(texts: pa.DictionaryArray, kind: pa.DataType) -> bool:
    """Return whether Arrow reads all the texts."""
    try:
        texts.dictionary.cast(kind)
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return False
    return True


def _parse(block: Block, types: Mapping[str, pa.DataType], missing: Sequence[str], misfits: list[Misfit]) -> pa.Table:
    """Return the columns as Arrow reads them; records that do not fit are added to `misfits`."""

    def set_aside(row: "pa_csv.InvalidRow") -> str:
        reason = f"expected {row.expected_columns} fields, got {row.actual_columns}"
        misfits.append(Misfit(row.number, reason))
        return "skip"

    return pa_csv.read_csv(
        pa.py_buffer(block.view),
        read_options=pa_csv.ReadOptions(
            use_threads=False, block_size=len(block.view) + 1, column_names=list(block.header)
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=block.separator, newlines_in_values=True, invalid_row_handler=set_aside
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict(types),
            include_columns=list(types),
            null_values=list(missing),
            strings_can_be_null=True,
            timestamp_parsers=[pa_csv.ISO8601],
        ),
    )


def _parse_texts(
    block: Block, types: Mapping[str, pa.DataType], missing: Sequence[str], misfits: list[Misfit]
) -> pa.Table:
    try:
        return _parse(block, types, missing, misfits)
    except (pa.ArrowInvalid, UnicodeDecodeError) as err:
        check_encoding(block)
        raise PipelineError(f"{block.source} cannot be read as CSV: {err}. Mend the file.") from err


def _join(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _find_doubtful(
    block: Block, read: Mapping[str, TypedColumn], num_rows: int, has_misfits: bool, layout: Layout
) -> list[str]:
    """Return the columns in which Arrow may have taken what the contract does not mean."""
    doubtful = {name for name, column in read.items() if not _is_plain(column, layout.finds_zeros)}
    integers = {name for name, column in read.items() if pa.types.is_integer(column.values.type)}
    numbers = {name for name, column in read.items() if pa.types.is_floating(column.values.type)}
    led = integers | numbers if layout.finds_zeros else integers
    if led:
        doubtful |= led & find_zero_led(block, num_rows, has_misfits, layout.finds_zeros)
    return [name for name in layout.contract.columns if name in doubtful]


def _is_plain(column: TypedColumn, is_inferring: bool) -> bool:
    """Return whether numbers and moments are such as the contract means."""
    kind = column.values.type
    if pa.types.is_timestamp(kind):
        low, _ = column.ends.cast(pa.int64()).to_pylist()
        return low is None or low >= _FIRST_MOMENT
    # Beyond 18 digits a number may be an id.
    limit = MAX_INTEGER if is_inferring or pa.types.is_integer(kind) else MAX_NUMBER
    low, high = column.ends.to_pylist()
    return low is None or (low >= -limit and high <= limit)  # NaN is neither


def _read_texts(texts: pa.Array, column: Column, missing: list[str]) -> TypedColumn:
    """Cast texts as the contract says, each distinct one once where they have levels."""
    if not pa.types.is_dictionary(texts.type):
        return _read_without_levels(texts, column, missing)
    levels = pc.utf8_trim_whitespace(texts.dictionary)
    if column.kind in ("category", "text"):
        present = casting.keep_present(levels, missing)
        is_as_read = not present.null_count and levels.equals(texts.dictionary)
        return TypedColumn(texts if is_as_read else _drop_missing_levels(texts.indices, present))
    cast = casting.cast_column(levels, column, missing)
    is_fault = cast.is_fault.take(texts.indices).fill_null(False) if pc.any(cast.is_fault).as_py() else None
    return TypedColumn(cast.values.take(texts.indices), _spell(texts.indices, levels), is_fault, cast.expected)


def _spell(indices: pa.Array, levels: pa.Array) -> pa.DictionaryArray:
    """Return texts as written; what is missing by every column's spelling is an empty text."""
    if indices.null_count:
        levels = pa.concat_arrays([levels, pa.array([""])])
        indices = pc.fill_null(indices, len(levels) - 1)
    return pa.DictionaryArray.from_arrays(indices, levels)


def _drop_missing_levels(indices: pa.Array, levels: pa.Array) -> pa.DictionaryArray:
    """Return a dictionary without nulls and without the same level twice."""
    plain = levels.dictionary_encode()
    if len(plain.dictionary) == len(levels):
        return pa.DictionaryArray.from_arrays(indices, levels)
    return pa.DictionaryArray.from_arrays(plain.indices.take(indices), plain.dictionary)


def _read_without_levels(texts: pa.Array, column: Column, missing: list[str]) -> TypedColumn:
    """Cast texts that hardly repeat."""
    spelled = pc.utf8_trim_whitespace(texts.fill_null(""))
    cast = casting.cast_column(spelled, column, missing)
    if column.kind in ("category", "text"):
        return TypedColumn(cast.values)
    is_fault = cast.is_fault if pc.any(cast.is_fault).as_py() else None
    return TypedColumn(cast.values, spelled.dictionary_encode(), is_fault, cast.expected)
