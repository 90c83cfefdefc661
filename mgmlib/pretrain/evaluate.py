"""What a backbone learned, in numbers: features of images, and the accuracy of probes on them."""

from __future__ import annotations

import numpy as np
import torch

from mgmlib.pretrain.canvas import Canvas
from mgmlib.pretrain.probe import knn_probe, linear_probe, wilson


@torch.no_grad()
def features(backbone, config, images, batch=1000):
    """Features (N, dim) float32 of unaugmented images, in evaluation mode.

    Parameters
    ----------
    backbone : torch.nn.Module
    config : Config
        For resolution and normalisation.
    images : Images
    batch : int
    """
    device = next(backbone.parameters()).device
    mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (config.mean, config.std))
    training, canvas, rows = backbone.training, Canvas(images, config.size), []
    backbone.eval()
    for start in range(0, len(images), batch):
        x = canvas[np.arange(start, min(start + batch, len(images)))].to(device)
        rows.append(backbone((x.float() / 255 - mean) / std).float().cpu())
    backbone.train(training)
    return torch.cat(rows).numpy()


def quality(backbone, config, train, test):
    """Linear and 20-nearest-neighbour accuracy with 95 % intervals over the test images.

    Returns
    -------
    dict: linear, linear_low, linear_high, knn, knn_low, knn_high
    """
    z, z_test = (features(backbone, config, images) for images in (train, test))
    found = {}
    for name, probe in (("linear", linear_probe), ("knn", knn_probe)):
        accuracy = probe(z, train.labels, z_test, test.labels)
        low, high = wilson(accuracy, len(test))
        found |= {name: accuracy, f"{name}_low": low, f"{name}_high": high}
    return found
