"""A ResNet at initialisation as its width tends to infinity: its cosines, predicted from its stem."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mgmlib.layerwise import embed_layers
from mgmlib.metrics.arccosine import relu_gram


def resnet_limit(encoder, images):
    """Cosines of the pooled maps of a timm ResNet at each of its stages, predicted from the stem's output.

    timm starts residual branches at zero, so that at initialisation a stage is one random 1 × 1 convolution
    with a ReLU (its shortcut, where that has weights) and nothing else. Each such layer takes the inner
    products of all pairs of positions through the arc-cosine kernel; no parameter is fitted.

    Parameters
    ----------
    encoder : Encoder
        Of a timm ResNet with random weights, its branches at zero.
    images : torch.Tensor (M, 3, S, S) float in [0, 1]

    Returns
    -------
    dict
        Stage ("layer1", ...) to (M, M) cosines, for the stages whose shortcut has weights; "maxpool", the
        stem's own, comes first. Positions are those of the stem's map that the last stage keeps.
    """
    net = encoder.net
    steps, stride = [], 1
    for name in ("layer1", "layer2", "layer3", "layer4"):
        shortcut = getattr(getattr(net, name, [None])[0], "downsample", None)
        if shortcut is not None:
            convolution = shortcut[0]
            if not isinstance(convolution, nn.Conv2d) or convolution.kernel_size != (1, 1):
                raise ValueError(f"encoder: the shortcut of {encoder.name}'s {name} is no 1 × 1 convolution")
            steps.append(name)
            stride *= convolution.stride[0]
    if not steps or not hasattr(net, "maxpool"):
        raise ValueError(f"encoder: {encoder.name} is not a timm ResNet")
    stem = encoder.at("maxpool", pool="flatten")  # which ends the forward pass there
    rows = torch.from_numpy(embed_layers(stem, images, [None])[None])
    channels = net.layer1[0].conv1.in_channels
    side = round((rows.shape[1] / channels) ** 0.5)
    maps = rows.view(len(images), channels, side, side)[:, :, ::stride, ::stride]
    points = maps.permute(0, 2, 3, 1).reshape(-1, channels).double().numpy()
    gram = points @ points.T
    found = {"maxpool": _pooled_cosines(gram, len(images))}
    for name in steps:
        gram = relu_gram(gram)
        found[name] = _pooled_cosines(gram, len(images))
    return found


def _pooled_cosines(gram, n):
    """Cosines of the n images' mean vectors from the inner products of all their positions."""
    positions = len(gram) // n
    pooled = gram.reshape(n, positions, n, positions).mean((1, 3))
    norm = np.sqrt(np.diag(pooled))
    return pooled / np.outer(norm, norm)
