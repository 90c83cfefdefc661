"""Layers of a network by name: which there are, and how the output of one becomes one vector an image."""

from __future__ import annotations

import difflib
import re

import torch
from torch import nn

POOLS = ("auto", "mean", "token", "flatten")
_CONTAINERS = ("blocks", "stages", "layers", "features", "encoder", "trunk", "levels")
_NORM = re.compile(r"(Frozen|Sync)?(Batch|Layer|Group|Instance|RMS|Rms|Simple)Norm")
_HEADS = ("fc", "head", "heads", "head_dist", "classifier", "last_linear")


def layers(encoder):
    """Names of the stages of an encoder, from input to output, for a depth profile.

    Stem, stages or blocks in the order in which they run; normalisation layers and heads are left out. Each
    name can be given as ``layer=`` to `load_model`, or to ``encoder.at``. The encoder as a whole
    (``layer=None``) comes after the last.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    list of str
    """
    net, ran = encoder.net, []
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: ran.append((name, out)))
        for name in _candidates(net)
    ]
    try:
        encoder.probe() if encoder.layer is None else encoder.at(
            None
        )  # either runs one image through all of the network
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(name for name, out in ran if isinstance(out, torch.Tensor) and out.ndim >= 2))


def _candidates(net, prefix=""):
    """Dotted names of the children that do the work; containers are opened, stages are not."""
    names = []
    for name, child in net.named_children():
        if name in _CONTAINERS or isinstance(child, nn.ModuleList):
            names += _candidates(child, f"{prefix}{name}.")
        elif (
            name not in _HEADS
            and not _NORM.match(type(child).__name__)
            and any(True for _ in child.parameters())
        ):
            names.append(prefix + name)
    return names


def find_layer(net, layer):
    """The submodule called ``layer``, or an error that lists candidates."""
    modules = dict(net.named_modules())
    if layer in modules and layer:
        return modules[layer]
    close = difflib.get_close_matches(str(layer), modules, n=4, cutoff=0.5)
    hint = f"Did you mean {', '.join(close)}? " if close else ""
    raise ValueError(
        f"layer={layer!r}: no such layer. {hint}Stages of this network: {', '.join(_candidates(net))}"
    )


class _Reached(Exception):
    """Ends a forward pass at the layer that was asked for."""


def run_to(net, layer, x):
    """Output of ``layer`` at its first call on input x; what comes after it is not computed."""
    met = []

    def stop(_module, _inputs, output):
        met.append(output)
        raise _Reached

    hook = find_layer(net, layer).register_forward_hook(stop)
    try:
        net(x)
    except _Reached:
        return met[0]
    finally:
        hook.remove()
    raise ValueError(f"layer={layer!r}: the forward pass of {type(net).__name__} never calls it")


def pooled(net, output, pool="auto"):
    """One vector an image, (B, d), from the output of a network or of one of its layers.

    Parameters
    ----------
    net : torch.nn.Module
        The network: says whether tokens begin with a class token, and where channels are.
    output : torch.Tensor
        (B, d): returned as it is. (B, C, H, W) or (B, H, W, C), told apart by H = W: a spatial map.
        (B, T, C): a sequence of tokens.
    pool : {"auto", "mean", "token", "flatten"}
        ``mean``: average over positions, prefix tokens left out. ``token``: the class token. ``auto``: the
        class token of a sequence where the network has one, else the mean. ``flatten``: all of the output.
    """
    if not isinstance(output, torch.Tensor) or output.ndim not in (2, 3, 4):
        met = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(
            f"layer output {met}: expected a tensor (B, d), (B, C, H, W) or (B, T, C); choose another layer="
        )
    prefix = _n_prefix_tokens(net, output)
    if pool == "token" and not prefix:
        raise ValueError(
            f"pool='token': the output {tuple(output.shape)} of {type(net).__name__} has no class token"
        )
    if output.ndim == 2 or pool == "flatten":
        return output.flatten(1)
    if output.ndim == 4:
        return output.mean((1, 2) if _channels_last(net, output) else (2, 3))
    return output[:, 0] if prefix and pool in ("auto", "token") else output[:, prefix:].mean(1)


def _channels_last(net, output):
    """Whether a map is (B, H, W, C): as inputs are square, two equal sides tell; else the network does."""
    _, first, second, third = output.shape
    if (first == second) != (second == third):
        return first == second
    return getattr(net, "output_fmt", "NCHW") == "NHWC"


def _n_prefix_tokens(net, output):
    """Number of class and register tokens that (B, T, C) begins with."""
    if output.ndim != 3 or all(getattr(net, name, None) is None for name in ("cls_token", "class_token")):
        return 0
    n_patches = getattr(getattr(net, "patch_embed", None), "num_patches", None)
    return 0 if output.shape[1] == n_patches else getattr(net, "num_prefix_tokens", 1)
