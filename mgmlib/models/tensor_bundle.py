"""TensorFlow's checkpoint format (V2, a *tensor bundle*), read without TensorFlow; nothing in it is run.

``PREFIX.index`` is a sorted table in the format of LevelDB: blocks of (key, value), an index of the blocks,
and a footer. Its keys are names of variables, its values protocol buffers that say where the bytes of each
lie in ``PREFIX.data-00000-of-00001``. Sources: tensorflow/core/util/tensor_bundle, tensor_bundle.proto,
LevelDB's doc/table_format.md. TensorFlow writes these tables uncompressed.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numba
import numpy as np

MAGIC = 0xDB4775248B80FB57  # the last 8 bytes of an index
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}
_FOOTER = 48
_TRAILER = 5  # of a block: compression type and checksum


class BundleError(ValueError):
    """A file that is not a sound tensor bundle."""


def read_bundle(path, wanted=lambda name: True):
    """Variables of a checkpoint.

    Parameters
    ----------
    path : PREFIX.index, a folder that holds one, or a .zip of such a folder.
    wanted : which variables to read, by name.

    Returns
    -------
    dict of str to array, in the order of the index; None for a variable that is not wanted.

    Raises
    ------
    BundleError
        A part is missing, cut short, compressed, fails its checksum, or is of a type that no encoder has.
    """
    index, data = _open(Path(path))
    entries = {key.decode(): _message(value) for key, value in _entries(index) if key}
    header = dict(_entries(index)).get(b"")
    if header is None or _one(_message(header), 1, 1) != 1:
        raise BundleError(f"{path}: expected a bundle of one data file")
    found = {}
    with data() as stream:
        size = stream.seek(0, io.SEEK_END)
        for name, entry in entries.items():
            found[name] = _tensor(name, entry, stream, size) if wanted(name) else None
    return found


def _open(path):
    """Bytes of the index, and a function that opens its data file."""
    if path.is_dir():
        return _open(_single(list(path.rglob("*.index")), path))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.startswith("__MACOSX")]
            member = _single([name for name in names if name.endswith(".index")], path)
            partner = _data_file(member)
            if partner not in names:
                raise BundleError(f"{path}: it holds no {partner}")
            index, raw = archive.read(member), archive.read(partner)
        return index, lambda: io.BytesIO(raw)
    partner = path.with_name(_data_file(path.name))
    if not partner.is_file():
        raise BundleError(f"{path}: expected the file {partner.name} beside it")
    return path.read_bytes(), lambda: open(partner, "rb")


def _single(paths, where):
    if len(paths) != 1:
        raise BundleError(f"{where}: expected one .index file, met {len(paths)}")
    return paths[0]


def _data_file(index):
    return index.removesuffix("index") + "data-00000-of-00001"


def _tensor(name, entry, stream, size):
    """One variable, its bytes checked."""
    number = _one(entry, 1, 0)
    if number not in DTYPES:
        raise BundleError(f"{name}: type {number} is not a plain number type")
    if 7 in entry or _one(entry, 3, 0) != 0:
        raise BundleError(f"{name}: partitioned variables are not supported")
    shape = [_one(_message(dim), 1, 0) for dim in _message(_one(entry, 2, b"")).get(2, [])]
    offset, length = _one(entry, 4, 0), _one(entry, 5, 0)
    dtype = np.dtype(DTYPES[number])
    if length != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
        raise BundleError(f"{name}: {length} bytes for {shape} of {dtype}")
    if offset + length > size:
        raise BundleError(f"{name}: ends at byte {offset + length}, the data file at {size}: it is truncated")
    stream.seek(offset)
    raw = stream.read(length)
    if len(raw) != length or masked_crc(raw) != _one(entry, 6, 0):
        raise BundleError(f"{name}: checksum does not match: the data file is damaged")
    return np.frombuffer(raw, dtype).reshape(shape)


def _entries(table):
    """Keys and values of a table, in order."""
    if len(table) < _FOOTER or int.from_bytes(table[-8:], "little") != MAGIC:
        raise BundleError("the index does not end as a tensor bundle does: truncated, or another format")
    footer = table[-_FOOTER:]
    _, at = _handle(footer, 0)  # of the block that describes the table, which is empty
    blocks, _ = _handle(footer, at)
    for _, value in _block(table, blocks):
        yield from _block(table, _handle(value, 0)[0])


def _handle(raw, at):
    """Offset and size of a block, and where the handle ends."""
    offset, at = _varint(raw, at)
    size, at = _varint(raw, at)
    return (offset, size), at


def _block(table, handle):
    """Keys and values of a block: each key gives the length that it shares with the one before."""
    offset, size = handle
    content, trailer = table[offset : offset + size], table[offset + size : offset + size + _TRAILER]
    if len(content) != size or len(trailer) != _TRAILER:
        raise BundleError("the index is truncated")
    if trailer[0] != 0:
        raise BundleError(f"the index is compressed (type {trailer[0]}): save it uncompressed")
    if masked_crc(content + trailer[:1]) != int.from_bytes(trailer[1:], "little"):
        raise BundleError("a checksum of the index does not match: it is damaged")
    end = size - 4 - 4 * int.from_bytes(content[-4:], "little")  # where the restart points begin
    at, key = 0, b""
    while at < end:
        shared, at = _varint(content, at)
        own, at = _varint(content, at)
        length, at = _varint(content, at)
        key = key[:shared] + content[at : at + own]
        yield key, content[at + own : at + own + length]
        at += own + length


def _message(raw):
    """Fields of a protocol buffer: number to the list of its values."""
    fields, at = {}, 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(raw, at)
        elif kind == 2:
            length, at = _varint(raw, at)
            value, at = raw[at : at + length], at + length
        elif kind in (1, 5):
            width = 8 if kind == 1 else 4
            value, at = int.from_bytes(raw[at : at + width], "little"), at + width
        else:
            raise BundleError(f"a protocol buffer of the index holds wire type {kind}: it is damaged")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _one(fields, number, default):
    """The value of a field that stands once; protocol buffers leave out what is zero."""
    return fields.get(number, [default])[-1]


def _varint(raw, at):
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise BundleError("a number in the index is cut short: it is damaged")
        value |= (raw[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if raw[at - 1] < 0x80:
            return value, at


def masked_crc(raw):
    """CRC-32C of bytes, rotated and shifted as LevelDB stores it."""
    crc = int(_crc32c(np.frombuffer(raw, np.uint8), _crc_table()))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc_table():
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, (crc >> 1) ^ np.uint32(0x82F63B78), crc >> 1)
    return crc


@numba.njit(cache=True)
def _crc32c(raw, table):
    crc = np.uint32(0xFFFFFFFF)
    for byte in raw:
        crc = table[(crc ^ byte) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)
