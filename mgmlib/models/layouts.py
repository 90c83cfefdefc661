"""Names of a checkpoint's tensors → the names that the encoder has, for each published layout.

Each function takes a flat dict and gives a flat dict. It renames and transposes; what it does not know it
leaves under its own name, so that strict loading lists it.
"""

from __future__ import annotations

import re

import numpy as np
import torch

BLOCKS = (3, 4, 6, 3)  # of a ResNet-50


def under(state, prefix, drop):
    """Tensors whose name begins with ``prefix``, without it; names under ``drop`` are left out."""
    kept = {k: v for k, v in state.items() if not any(k == d or k.startswith(f"{d}.") for d in drop)}
    return {k.removeprefix(prefix): v for k, v in kept.items()}


def convolutions():
    """Names of a ResNet-50's (convolution, batch norm) in the order in which TensorFlow's SimCLR makes them.

    The shortcut of a stage comes before the convolutions of its first block.
    """
    names = [("conv1", "bn1")]
    for stage, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            here = f"layer{stage}.{block}"
            if block == 0:
                names.append((f"{here}.downsample.0", f"{here}.downsample.1"))
            names += [(f"{here}.conv{i}", f"{here}.bn{i}") for i in (1, 2, 3)]
    return names


TENSORFLOW = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
TENSORFLOW["moving_variance"] = "running_var"


def from_tensorflow(variables, prefix="base_model/"):
    """SimCLR's variables: numbered in the order of their making, kernels (H, W, in, out)."""
    order, state = convolutions(), {}
    for name, value in variables.items():
        found = re.fullmatch(rf"{re.escape(prefix)}(conv2d|batch_normalization)(?:_(\d+))?/(\w+)", name)
        number = int(found[2] or 0) if found else len(order)
        if number >= len(order) or (found[1] == "conv2d") != (found[3] == "kernel"):
            _put(state, name, _tensor(value))
        elif found[3] == "kernel":
            _put(state, f"{order[number][0]}.weight", _kernel(value))
        else:
            _put(state, f"{order[number][1]}.{TENSORFLOW.get(found[3], found[3])}", _tensor(value))
    return state


HAIKU = {"w": "weight", "scale": "weight", "offset": "bias", "mean_ema": "running_mean"}
HAIKU["var_ema"] = "running_var"


def from_haiku(params, statistics, prefix="res_net50/~/", drop=()):
    """BYOL's parameters and statistics: module path to arrays, kernels (H, W, in, out)."""
    state = {}
    for path, arrays in params.items():
        if not path.startswith(drop):
            for key, value in arrays.items():
                module = _from_haiku(path, prefix)
                known = module is not None and key in HAIKU
                name = f"{module}.{HAIKU[key]}" if known else f"{path}/{key}"
                _put(state, name, _kernel(value) if known and key == "w" else _tensor(value).flatten())
    for path, arrays in statistics.items():
        if not path.startswith(drop):
            home, _, which = path.rpartition("/~/")
            module = _from_haiku(home, prefix)
            name = f"{module}.{HAIKU[which]}" if module is not None and which in HAIKU else path
            _put(state, name, _tensor(arrays["average"]).flatten())
    return state


def _from_haiku(path, prefix):
    """The torch name of a haiku module of the ResNet, or None."""
    path = path.removeprefix(prefix) if path.startswith(prefix) else ""
    if found := re.fullmatch(r"initial_(conv|batchnorm)(?:_1)?", path):
        return {"conv": "conv1", "batchnorm": "bn1"}[found[1]]
    place = r"block_group_(\d)/~/block_(\d)/~/"
    if found := re.fullmatch(rf"{place}(conv|batchnorm)_(\d)", path):
        kind = {"conv": "conv", "batchnorm": "bn"}[found[3]]
        return f"layer{int(found[1]) + 1}.{found[2]}.{kind}{int(found[4]) + 1}"
    if found := re.fullmatch(rf"{place}shortcut_(conv|batchnorm)", path):
        return f"layer{int(found[1]) + 1}.{found[2]}.downsample.{int(found[3] == 'batchnorm')}"
    return None


def from_converted_simclr2(state):
    """The public conversion of SimCLR-v2 (SimCLRv2-Pytorch), which keeps TensorFlow's way of building."""
    return {_from_converted(name): value for name, value in state.items()}


def _from_converted(name):
    if found := re.fullmatch(r"net\.0\.(?:0|1\.0)\.(\w+)", name):
        return f"{'conv1' if name.startswith('net.0.0.') else 'bn1'}.{found[1]}"
    place = r"net\.([1-4])\.blocks\.(\d)\."
    if found := re.fullmatch(rf"{place}net\.([0-5])(\.0)?\.(\w+)", name):
        position = int(found[3])
        kind = "bn" if position % 2 else "conv"
        if (kind == "bn") == bool(found[4]):
            return f"layer{found[1]}.{found[2]}.{kind}{position // 2 + 1}.{found[5]}"
    if found := re.fullmatch(rf"{place}projection\.(shortcut|bn\.0)\.(\w+)", name):
        return f"layer{found[1]}.{found[2]}.downsample.{int(found[3] == 'bn.0')}.{found[4]}"
    return name


def resize_positions(state, grid):
    """Position embeddings of a ViT for another grid of patches, as DINO and DINOv2 resize theirs.

    Bicubic without antialiasing, at a scale of (grid + 0.1) / old grid (dinov2/models/vision_transformer.py,
    ``interpolate_pos_encoding``). A grid of the same size is left alone.
    """
    positions = state.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return state
    side = round((positions.shape[1] - 1) ** 0.5)
    if side**2 != positions.shape[1] - 1 or side == grid:
        return state
    first, patches = positions[:, :1], positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (grid + 0.1) / side
    patches = torch.nn.functional.interpolate(
        patches.float(), scale_factor=(scale, scale), mode="bicubic", antialias=False
    )
    return state | {"pos_embed": torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)}


def _put(state, name, value):
    if name in state:
        raise ValueError(f"two tensors of the checkpoint are both {name}")
    state[name] = value


def _tensor(value):
    return torch.from_numpy(np.array(value))  # a copy: what was read cannot be written to


def _kernel(value):
    """A convolution's kernel (H, W, in, out) as (out, in, H, W)."""
    return _tensor(value).permute(3, 2, 0, 1).contiguous() if np.ndim(value) == 4 else _tensor(value)
