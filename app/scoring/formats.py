"""The forms that scored rows are written in. Each block becomes a part of its own, and the parts one file.

In a CSV the fields of the input stand as they were written, and the answers follow. Parquet and Arrow hold typed
columns.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.scoring.blocks import ScoredBlock
from app.scoring.plan import Plan
from data_ingestion.casting import arrow_type
from data_ingestion.csv_places import locate_records
from data_ingestion.csv_reader import check_encoding
from data_ingestion.handoff import PipelineError
from data_ingestion.typed_blocks import read_texts

Format = Literal["csv", "parquet", "arrow"]
FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"}
ROWS_PER_GROUP = 131_072
MOMENT = "%Y-%m-%dT%H:%M:%SZ"


def find_format(output: Path) -> Format:
    """Return the form that the ending of a file names.

    Raises
    ------
    PipelineError : it names none
    """
    if output.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise PipelineError(f'--output {output} ends in "{output.suffix}", expected one of {known}. Name another file.')
    return FORMATS[output.suffix.lower()]


def encode_part(scored: ScoredBlock, plan: Plan, format: Format) -> bytes:
    """Return the rows of one block: lines of CSV, or an Arrow file."""
    return _format_lines(scored) if format == "csv" else _pack_table(_type_rows(scored, plan))


def join_parts(parts: Iterable[Path], plan: Plan, separator: str, format: Format, file: IO[bytes]) -> None:
    """Write the parts as one file.

    Parameters
    ----------
    parts : in order
    plan : names the columns
    separator : of a CSV, that of the input
    format : what is written
    file : open for writing
    """
    if format == "csv":
        _join_lines(parts, [*plan.header, *plan.answer_schema.names], separator, file)
    elif format == "parquet":
        _join_parquet(parts, describe_rows(plan), file)
    else:
        _join_arrow(parts, describe_rows(plan), file)


def describe_rows(plan: Plan) -> pa.Schema:
    """Return the columns of the output, those of the input in their order first; unknown ones are texts."""
    known = plan.layout.contract.columns
    types = {name: arrow_type(known[name]) if name in known else pa.string() for name in plan.header}
    return pa.schema([*pa.schema(types), *plan.answer_schema])


# CSV


def _format_lines(scored: ScoredBlock) -> bytes:
    """Return the records as they stand in the file, each with its answers behind it."""
    block = scored.block
    check_encoding(block)
    content = block.content
    starts, _, _ = locate_records(content, block.separator)
    offsets = np.append(starts, len(content)).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    records = pa.Array.from_buffers(pa.string(), len(starts), buffers).take(pa.array(scored.places))
    fields = [_quote(_spell(column.combine_chunks()), block.separator) for column in scored.answers.columns]
    lines = pc.binary_join_element_wise(pc.ascii_rtrim(records, "\r\n"), *fields, block.separator)
    text = pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0]
    return text.as_py().encode() + b"\n" if len(lines) else b""


def _spell(values: pa.Array) -> pa.Array:
    """Return values as texts; a number has as many digits as it takes to read the same number again."""
    if pa.types.is_timestamp(values.type):
        return pc.strftime(values.cast(pa.timestamp("s", "UTC")), MOMENT)
    return values.cast(pa.string()).fill_null("")


def _quote(texts: pa.Array, separator: str) -> pa.Array:
    """Return texts with quotes around those that need them."""
    needs = pa.array(np.zeros(len(texts), dtype=bool))
    for mark in (separator, '"', "\n", "\r"):
        needs = pc.or_(needs, pc.match_substring(texts, mark))
    if not pc.any(needs).as_py():
        return texts
    inner = pc.replace_substring(texts, '"', '""')
    return pc.if_else(needs, pc.binary_join_element_wise('"', inner, '"', ""), texts)


def _join_lines(parts: Iterable[Path], header: list[str], separator: str, file: IO[bytes]) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerow(header)
    file.write(text.getvalue().encode())
    for part in parts:
        file.write(part.read_bytes())


# Tables


def _type_rows(scored: ScoredBlock, plan: Plan) -> pa.Table:
    schema = describe_rows(plan)
    unknown = read_texts(scored.block, plan.unknown) if plan.unknown else {}
    rows = pa.array(scored.rows)
    texts = {name: column.take(rows) for name, column in unknown.items()}
    columns = [
        pc.if_else(pc.equal(texts[name], ""), pa.scalar(None, pa.string()), texts[name])
        if name in texts
        else (scored.table if name in scored.table.column_names else scored.answers)[name].cast(schema.field(name).type)
        for name in schema.names
    ]
    return pa.table(columns, schema)


def _pack_table(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_table(table.combine_chunks())
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _iterate_tables(parts: Iterable[Path]) -> Iterable[pa.Table]:
    for part in parts:
        with pa.OSFile(str(part)) as file:
            yield pa.ipc.open_file(file).read_all()


def _join_arrow(parts: Iterable[Path], schema: pa.Schema, file: IO[bytes]) -> None:
    with pa.ipc.new_file(file, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        for table in _iterate_tables(parts):
            writer.write_table(table)


def _join_parquet(parts: Iterable[Path], schema: pa.Schema, file: IO[bytes]) -> None:
    """Write row groups of one size, whatever the size of the parts."""
    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        waiting = schema.empty_table()
        for table in _iterate_tables(parts):
            waiting = pa.concat_tables([waiting, table])
            while waiting.num_rows >= ROWS_PER_GROUP:
                writer.write_table(waiting.slice(0, ROWS_PER_GROUP))
                waiting = waiting.slice(ROWS_PER_GROUP)
        if waiting.num_rows:
            writer.write_table(waiting)
