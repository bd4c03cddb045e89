"""How large the packed batches of an Arrow stream or file are, before they are unpacked: Arrow itself has no limit.

Layout: Message.fbs of Apache Arrow's format, and the binary form of FlatBuffers.
"""

from __future__ import annotations

import struct
from typing import Any

import pyarrow.ipc as ipc

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_TYPE, _HEADER, _DATA, _BUFFERS, _COMPRESSION = 1, 2, 1, 2, 3
"""Fields of Message, of DictionaryBatch, and of RecordBatch."""
_MAGIC = b"ARROW1"


def largest_batch(source: Any) -> int:
    """Most bytes that a batch takes once it is unpacked; 0 where none is packed.

    source: a file of pyarrow. Raises pa.ArrowException or ValueError where it is damaged.
    """
    source.seek(0)
    source.seek(8 if source.read(len(_MAGIC)) == _MAGIC else 0)
    try:
        return max((_unpacked(message) for message in ipc.MessageReader.open_stream(source)), default=0)
    except struct.error as error:
        raise ValueError("a damaged description of a batch") from error


def _unpacked(message: Any) -> int:
    head, body = message.metadata, message.body
    (root,) = struct.unpack_from("<I", head, 0)
    place, kind = _field(head, root, _HEADER), _field(head, root, _TYPE)
    if body is None or not place or not kind or head[kind] not in (_DICTIONARY_BATCH, _RECORD_BATCH):
        return 0
    table = _pointed(head, place)
    if head[kind] == _DICTIONARY_BATCH:
        data = _field(head, table, _DATA)
        table = _pointed(head, data) if data else table
    buffers = _field(head, table, _BUFFERS)
    if not buffers or not _field(head, table, _COMPRESSION):
        return 0
    vector = _pointed(head, buffers)
    (count,) = struct.unpack_from("<I", head, vector)
    total = 0
    for offset, length in struct.iter_unpack("<qq", memoryview(head)[vector + 4 : vector + 4 + 16 * count]):
        if length >= 8:  # each starts with its length once unpacked, or -1 where it is not packed
            total += max(struct.unpack_from("<q", body, offset)[0], 0)
    return total


def _field(head: Any, table: int, number: int) -> int:
    """Place of a field of a table; 0 where it has its default."""
    (back,) = struct.unpack_from("<i", head, table)
    size: int = struct.unpack_from("<H", head, table - back)[0]
    place = 4 + 2 * number
    offset: int = struct.unpack_from("<H", head, table - back + place)[0] if place < size else 0
    return table + offset if offset else 0


def _pointed(head: Any, place: int) -> int:
    return place + int(struct.unpack_from("<I", head, place)[0])
