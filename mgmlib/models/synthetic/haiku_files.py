"""A ResNet-50 as BYOL's published checkpoint: the pickle that dill (protocol 2) makes of haiku's parameters.

Written opcode by opcode, so that neither dill nor haiku nor jax is needed: their names are but text there.
"""

from __future__ import annotations

import struct

import numpy as np

from mgmlib.models.layouts import BLOCKS

_FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")


def write_byol(path, state):
    """Write a state dict with torchvision's names as BYOL's experiment."""
    params, statistics = byol_trees(state)
    zero = {"projector/linear": {"w": np.zeros((2, 2), np.float32)}}
    target = _frozen(zero)
    experiment = _Record(
        "_ByolExperimentState",
        _FIELDS,
        (
            _frozen(params | zero | {"predictor/linear": {"b": np.zeros(2, np.float32)}}),
            target,
            _frozen(statistics | {"projector/batch_norm/~/mean_ema": _ema(np.zeros(2, np.float32))}),
            target,
            [_Record("ScaleByLarsState", ("mu",), (target,)), ()],
        ),
    )
    content = {"experiment_state": experiment, "step": np.array(300000), "rng": np.array([0, 1], np.uint32)}
    with open(path, "wb") as file:
        file.write(b"\x80\x02")
        _save(file.write, content)
        file.write(b".")


def byol_trees(state):
    """Haiku's parameters and statistics of a ResNet-50: module path to arrays."""
    modules = [("conv1", "initial_conv"), ("bn1", "initial_batchnorm")]
    for group, blocks in enumerate(BLOCKS):
        for block in range(blocks):
            ours, theirs = f"layer{group + 1}.{block}.", f"block_group_{group}/~/block_{block}/~/"
            modules += [(f"{ours}conv{i + 1}", f"{theirs}conv_{i}") for i in range(3)]
            modules += [(f"{ours}bn{i + 1}", f"{theirs}batchnorm_{i}") for i in range(3)]
            if block == 0:
                modules.append((f"{ours}downsample.0", f"{theirs}shortcut_conv"))
                modules.append((f"{ours}downsample.1", f"{theirs}shortcut_batchnorm"))
    params, statistics = {}, {}
    for ours, theirs in modules:
        path, weight = f"res_net50/~/{theirs}", state[f"{ours}.weight"]
        if weight.ndim == 4:
            params[path] = {"w": weight.permute(2, 3, 1, 0).contiguous().numpy()}
            continue
        params[path] = {"offset": _channels(state[f"{ours}.bias"]), "scale": _channels(weight)}
        statistics[f"{path}/~/mean_ema"] = _ema(_channels(state[f"{ours}.running_mean"]))
        statistics[f"{path}/~/var_ema"] = _ema(_channels(state[f"{ours}.running_var"]))
    return params, statistics


def _channels(values):
    return values.numpy().reshape(1, 1, 1, -1)


def _ema(average):
    return {"average": average, "counter": np.array(300000, np.int32), "hidden": average}


class _Call:
    """A call that the pickle asks for: a global's name and its arguments; ``state`` is then set by BUILD."""

    def __init__(self, module, name, *arguments, state=None):
        self.module, self.name, self.arguments, self.state = module, name, arguments, state


class _Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class _Record:
    def __init__(self, name, fields, values):
        self.kind = _Call("dill._dill", "_create_namedtuple", name, fields, "byol.byol_experiment")
        self.values = values


def _frozen(tree):
    return _Call("haiku._src.data_structures", "frozendict", tree)


def _array(value):
    """What dill writes for an array: numpy's own way of putting it together, inside a call of dill's."""
    dtype = _Call("numpy", "dtype", value.dtype.str[1:], False, True)
    dtype.state = (3, "<", None, None, None, -1, -1, 0)
    rebuild = _Global("numpy.core.multiarray", "_reconstruct")
    kind = (_Global("numpy", "ndarray"), (0,), _latin1(b"b"))
    state = (1, value.shape, dtype, False, _latin1(value.tobytes()))
    return _Call("dill._dill", "_create_array", rebuild, kind, state, None)


def _latin1(raw):
    return _Call("_codecs", "encode", raw.decode("latin1"), "latin1")


def _save(write, value):
    """Write one object: protocol 2, without a memo."""
    if value is None or isinstance(value, bool):
        write({None: b"N", True: b"\x88", False: b"\x89"}[value])
    elif isinstance(value, int):
        write(b"J" + struct.pack("<i", value))
    elif isinstance(value, str):
        raw = value.encode("utf-8")
        write(b"X" + struct.pack("<I", len(raw)) + raw)
    elif isinstance(value, np.ndarray):
        _save(write, _array(value))
    elif isinstance(value, tuple | list):
        write(b"(")
        for item in value:
            _save(write, item)
        write(b"t" if isinstance(value, tuple) else b"l")
    elif isinstance(value, dict):
        write(b"}(")
        for key, item in value.items():
            _save(write, key)
            _save(write, item)
        write(b"u")
    elif isinstance(value, _Global):
        write(f"c{value.module}\n{value.name}\n".encode())
    elif isinstance(value, _Call):
        _save(write, _Global(value.module, value.name))
        _save(write, value.arguments)
        write(b"R")
        if value.state is not None:
            _save(write, value.state)
            write(b"b")
    elif isinstance(value, _Record):
        _save(write, value.kind)
        _save(write, value.values)
        write(b"\x81")
    else:
        raise TypeError(f"a {type(value).__name__} has no place in this pickle")
