"""How much memory an Arrow stream takes once it is unpacked, known before it is: a small body may say that it is huge.

A message of a stream holds FlatBuffers metadata and a body of buffers; a packed buffer begins with its length as
unpacked. https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc
"""

import struct

import pyarrow as pa

AS_IT_IS = -1  # the length of a buffer that is not packed though others are


def count_unpacked_bytes(content: bytes) -> int:
    """Return the bytes of all buffers of an Arrow stream, unpacked.

    Raises
    ------
    ValueError, OSError : it is none
    """
    total = 0
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(content)):
        if message.body is not None:
            try:
                total += _count_message(bytes(message.metadata), memoryview(message.body))
            except struct.error as err:
                raise ValueError("the message is cut short") from err
    return total


def _count_message(metadata: bytes, body: memoryview) -> int:
    """Return the bytes of one message's buffers, unpacked."""
    message = _follow(metadata, 0)
    batch = _follow(metadata, _find_field(metadata, message, 2))
    (kind,) = struct.unpack_from("<B", metadata, _find_field(metadata, message, 1))
    if kind == 2:  # a dictionary, in which a batch is the second field
        batch = _follow(metadata, _find_field(metadata, batch, 1))
    if not _has_field(metadata, batch, 3):  # nothing is packed
        return len(body)
    buffers = _follow(metadata, _find_field(metadata, batch, 2))
    (count,) = struct.unpack_from("<I", metadata, buffers)
    total = 0
    for offset, length in struct.iter_unpack("<qq", metadata[buffers + 4 : buffers + 4 + 16 * count]):
        if length > 0:
            (unpacked,) = struct.unpack_from("<q", body, offset)
            total += length if unpacked == AS_IT_IS else max(unpacked, length)
    return total


# FlatBuffers: a table begins with the distance back to the list of where its fields are.


def _follow(data: bytes, place: int) -> int:
    """Return the place that the distance at a place leads to."""
    (distance,) = struct.unpack_from("<I", data, place)
    return place + int(distance)


def _has_field(data: bytes, table: int, number: int) -> bool:
    return _read_offset(data, table, number) > 0


def _find_field(data: bytes, table: int, number: int) -> int:
    offset = _read_offset(data, table, number)
    if not offset:
        raise struct.error("a field is missing")
    return table + offset


def _read_offset(data: bytes, table: int, number: int) -> int:
    (back,) = struct.unpack_from("<i", data, table)
    fields = table - back
    (size,) = struct.unpack_from("<H", data, fields)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, fields + 4 + 2 * number)
    return int(offset)
