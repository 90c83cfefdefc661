"""An encoder: a network with its own preprocessing, from images in [0, 1] to one vector an image."""

from __future__ import annotations

import hashlib
import json
import math
import re

import torch
from torch import nn

from mgmlib.models.layers import POOLS, find_layer, pooled, run_to
from mgmlib.steps import Preprocessing


class Encoder(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to embeddings (B, dim).

    Parameters
    ----------
    net : torch.nn.Module
        Takes normalised images (B, 3, H, W).
    name : str
    preprocessing : Preprocessing
        How an image becomes a square of ``input_size`` pixels before it gets here.
    mean, std : sequence of 3 floats
        Normalisation of the channels, in units of [0, 1].
    layer : str, optional
        Dotted name of the submodule whose output is the embedding; default the output of ``net``.
    pool : {"auto", "mean", "token", "flatten"}
        How a map or a sequence becomes one vector, see `mgmlib.models.layers.pooled`.
    meta : dict, optional
        What else is worth knowing of where it came from (weights, seed).

    Attributes
    ----------
    dim : int
        Length of an embedding.
    input_size, resize : int
        Side of the input, and length of the short side before the centre crop, in pixels.
    digest : str
        sha256 of all that determines an embedding: weights, architecture, layer, pooling, preprocessing.
        Computed anew at each access, so that it is right after training, too.
    meta : dict
    """

    def __init__(self, net, *, name, preprocessing, mean, std, layer=None, pool="auto", meta=None):
        super().__init__()
        if not isinstance(preprocessing, Preprocessing):
            raise TypeError(f"preprocessing: expected Preprocessing, met {type(preprocessing).__name__}")
        if pool not in POOLS:
            raise ValueError(f"pool={pool!r}: expected one of {', '.join(POOLS)}")
        if layer is not None:
            find_layer(net, layer)
        self.net, self.name, self.layer, self.pool = net, name, layer, pool
        self.preprocessing, self._origin = preprocessing, dict(meta or {})
        self._mean, self._std = _channels(mean, "mean"), _channels(std, "std")
        if min(self._std) <= 0:
            raise ValueError(f"std={self._std}: expected three positive numbers")
        device = next((p.device for p in net.parameters()), torch.device("cpu"))
        for buffer, values in (("mean", self._mean), ("std", self._std)):
            self.register_buffer(
                buffer, torch.tensor(values, device=device).view(1, 3, 1, 1), persistent=False
            )
        self.training = net.training
        self.dim = self.probe().shape[1]

    def forward(self, images):
        """Embeddings (B, dim) of images (B, 3, H, W), float in [0, 1]."""
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"images: expected float (B, 3, H, W) in [0, 1], met {tuple(images.shape)} {images.dtype}"
            )
        x = (images - self.mean) / self.std
        output = self.net(x) if self.layer is None else run_to(self.net, self.layer, x)
        z = pooled(self.net, output, self.pool)
        if len(z) != len(images):
            raise ValueError(
                f"layer={self.layer!r}: gave {len(z)} vectors for {len(images)} images; choose another"
            )
        return z

    def at(self, layer, pool="auto"):
        """The same network, sharing its weights, read out at another layer."""
        return Encoder(
            self.net,
            name=self.name,
            preprocessing=self.preprocessing,
            mean=self._mean,
            std=self._std,
            layer=layer,
            pool=pool,
            meta=self._origin,
        )

    @torch.inference_mode()
    def probe(self):
        """The embedding of one black image, in eval mode; the training state is left as it was."""
        training = {module: module.training for module in self.modules()}
        self.eval()
        try:
            return self(torch.zeros(1, 3, self.input_size, self.input_size, device=self.mean.device))
        finally:
            for module, mode in training.items():
                module.training = mode

    @property
    def input_size(self):
        """Side of the input, in pixels."""
        return self.preprocessing.size

    @property
    def resize(self):
        """Length of the short side before the centre crop, in pixels."""
        return self.preprocessing.resize

    @property
    def digest(self):
        """All that determines an embedding, as sha256 hex."""
        structure = re.sub(r" at 0x[0-9a-f]+", "", repr(self.net))
        sha = hashlib.sha256(json.dumps([type(self.net).__name__, structure, self._reading()]).encode())
        for key, value in self.net.state_dict().items():
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"state dict entry {key!r}: expected a tensor, met {type(value).__name__}")
            value = value.detach().cpu().contiguous()
            sha.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.flatten().view(torch.uint8).numpy())
        return sha.hexdigest()

    @property
    def meta(self):
        """Name, origin and every parameter, as JSON values."""
        return {"name": self.name, "dim": self.dim, **self._reading(), **self._origin}

    def _reading(self):
        p = self.preprocessing
        return {
            "layer": self.layer,
            "pool": self.pool,
            "input_size": p.size,
            "resize": p.resize,
            "interpolation": p.interpolation,
            "crop_mode": p.crop_mode,
            "mean": list(self._mean),
            "std": list(self._std),
        }

    def extra_repr(self):
        """What ``repr`` shows beside the network."""
        return f"name={self.name!r}, layer={self.layer!r}, dim={self.dim}, input_size={self.input_size}"


def _channels(values, what):
    values = tuple(float(v) for v in values)
    if len(values) != 3 or not all(math.isfinite(v) for v in values):
        raise ValueError(f"{what}={values}: expected three finite numbers, one a channel")
    return values
