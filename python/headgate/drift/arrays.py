"""NumPy arrays from files that may lie: headers are compared with the bytes that are there before any room is made for them.

NumPy believes the header, and asks for as much memory as it says; ``zipfile`` makes an object for each member of a directory,
however long it is. Next: ``loading``, which knows the limits.
"""

from __future__ import annotations

import io
import math
import os
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_NUMBERS = "biuf"
_CHUNK = 1 << 20
_END, _LOCATOR, _LOCATOR_BYTES = b"PK\x05\x06", b"PK\x06\x07", 20
_MOST_END = 22 + 65_535
"""Bytes that the end of an archive's directory and its comment take."""
_MOST_DIRECTORY = 1 << 20
_MOST_HEADER = 16_384
"""Bytes that are looked at for the header; NumPy reads no more than 10 000."""


def check_directory(file: BinaryIO) -> None:
    """``ValueError`` for a zip archive whose directory is longer than that of any sample; nothing for what is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_END))
    end = file.read()
    at = end.rfind(_END)
    # zipfile takes the numbers of the 64-bit form where there is one, which an archive below 4 GiB does not need.
    large = end[max(0, at - _LOCATOR_BYTES) : at].startswith(_LOCATOR)
    if at >= 0 and (large or int.from_bytes(end[at + 12 : at + 16], "little") > _MOST_DIRECTORY):
        raise ValueError("holds more arrays than a model has tensors")
    file.seek(0)


def read_array(file: IO[bytes], size: int, most_values: int) -> NDArray[Any]:
    """The array of a ``.npy`` file of ``size`` bytes; ``ValueError`` unless it holds numbers, as many as it says and at most so many.

    The messages are the ends of sentences that begin with its name.
    """
    # The length of the header is the file's word too, and NumPy makes room for it.
    head = io.BytesIO(file.read(_MOST_HEADER))
    version = npy.read_magic(head)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"is of .npy format {version[0]}.{version[1]}; 1.0 and 2.0 are read")
    shape, by_columns, dtype = readers[version](head)
    if dtype.kind not in _NUMBERS:
        raise ValueError(f"holds {dtype}; numbers and bools are read")
    count = math.prod(shape)
    if count > most_values:
        raise ValueError(f"has {count} values; a sample may have {most_values}")
    claimed, there = count * dtype.itemsize, size - head.tell()
    if claimed != there:
        raise ValueError(
            f"has a header that says shape {list(shape)} of {dtype}, which is {claimed} bytes, and there are {there}"
        )
    data = bytearray(head.read(claimed))
    while len(data) < claimed and (chunk := file.read(min(_CHUNK, claimed - len(data)))):
        data += chunk
    if len(data) != claimed:
        raise ValueError(f"is cut off: {claimed} bytes are expected, and {len(data)} came")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
