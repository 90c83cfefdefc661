"""A ResNet-50 as SimCLR's TensorFlow checkpoint: a writer of tensor bundles, the mirror of their reader."""

from __future__ import annotations

import struct
import zipfile

import numpy as np

from mgmlib.models.layouts import TENSORFLOW, convolutions
from mgmlib.models.tensor_bundle import DTYPES, MAGIC, masked_crc

_BLOCK = 262144  # bytes after which TensorFlow begins another block
_RESTART = 16  # entries after which a key is written in full


def write_simclr(path, state, momentum=False):
    """Write a state dict with torchvision's names under TensorFlow's.

    Parameters
    ----------
    path : PREFIX.index, whose data file is written beside it, or a .zip that holds both.
    state : dict of str to tensor
    momentum : with the optimiser's slots and the contrastive head, as in SimCLR-v2's files.
    """
    variables = {"global_step": np.int64(225206)}
    variables["head_supervised/linear_layer/dense/kernel"] = np.zeros((2048, 1000), np.float32)
    variables["head_supervised/linear_layer/dense/bias"] = np.zeros(1000, np.float32)
    for number, (convolution, norm) in enumerate(convolutions()):
        suffix = f"_{number}" if number else ""
        kernel = state[f"{convolution}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        variables[f"base_model/conv2d{suffix}/kernel"] = kernel
        for theirs, ours in TENSORFLOW.items():
            variables[f"base_model/batch_normalization{suffix}/{theirs}"] = state[f"{norm}.{ours}"].numpy()
    if momentum:
        slots = [name for name in variables if name.endswith(("beta", "gamma"))]
        variables |= {f"{name}/Momentum": np.zeros_like(variables[name]) for name in slots}
        variables["head_contrastive/nl_0/dense/kernel"] = np.zeros((4, 4), np.float32)
    index, data = bundle(variables)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for ending, content in (("index", index), ("data-00000-of-00001", data), ("meta", b"graph")):
                archive.writestr(f"ResNet50_1x/model.ckpt-225206.{ending}", content)
    else:
        path.write_bytes(index)
        path.with_name(path.name.removesuffix("index") + "data-00000-of-00001").write_bytes(data)


def bundle(variables, block=_BLOCK):
    """The bytes of an index and of a data file."""
    codes = {np.dtype(code): number for number, code in DTYPES.items()}
    entries, parts, offset = (
        [(b"", b"\x08\x01\x1a\x02\x08\x01")],
        [],
        0,
    )  # the header: one data file, version 1
    for name, value in variables.items():
        value = np.asarray(value)
        raw = value.tobytes()
        dims = b"".join(_field(2, _number(1, side)) for side in value.shape)
        entry = _number(1, codes[value.dtype]) + _field(2, dims) + _number(4, offset) + _number(5, len(raw))
        entries.append((name.encode(), entry + b"\x35" + struct.pack("<I", masked_crc(raw))))
        parts.append(raw)
        offset += len(raw)
    return _table(sorted(entries), block), b"".join(parts)


def _table(entries, block):
    out, index, waiting = bytearray(), [], []
    for number, entry in enumerate(entries):
        waiting.append(entry)
        if number == len(entries) - 1 or sum(len(k) + len(v) for k, v in waiting) >= block:
            last = number == len(entries) - 1
            key = bytes([entry[0][0] + 1]) if last and entry[0] else entry[0]  # any key that is not less
            index.append((key, _append(out, _block(waiting, _RESTART))))
            waiting = []
    empty = _append(out, _block([], _RESTART))
    handles = empty + _append(out, _block(index, 1))
    return bytes(out) + handles.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def _append(out, content):
    """Add a block with its trailer; its handle."""
    handle = _varint(len(out)) + _varint(len(content))
    out += content + b"\0" + struct.pack("<I", masked_crc(content + b"\0"))
    return handle


def _block(entries, restart):
    out, restarts, last = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % restart == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += _varint(shared) + _varint(len(key) - shared) + _varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _number(field, value):
    return _varint(field << 3) + _varint(value) if value else b""


def _field(field, content):
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
