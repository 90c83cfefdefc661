"""Signs of collapse, watched while a network trains."""

from __future__ import annotations

import torch

from mgmlib.pretrain.heads import unit
from mgmlib.pretrain.views import View, render

# The same views for every method, so that alignment means the same for all.
_VIEW = View(scale=(0.2, 1), blur=0.5)


class Watch:
    """Indicators on a fixed batch of images, the same at every call.

    Parameters
    ----------
    pixels : torch.Tensor (B, 3, S, S) uint8
    size : int
    normalize : callable
        Pixels in [0, 1] to the network's input.
    """

    def __init__(self, pixels, size, normalize):
        self.plain = normalize(pixels.float() / 255)
        rng = torch.Generator(pixels.device).manual_seed(0)
        self.views = [normalize(render(pixels, _VIEW, size, rng)) for _ in range(2)]

    @torch.no_grad()
    def __call__(self, backbone):
        """Indicators of a backbone, in evaluation mode; its own mode is restored.

        Returns
        -------
        dict
            ``feature_std``: standard deviation of a coordinate of the unit features times √d, 0 when all
            images fall on one point and at most 1; ``rankme``, ``alignment`` and ``uniformity`` as in
            `mgmlib.metrics`.
        """
        from mgmlib.metrics import alignment, rankme, uniformity

        training = backbone.training
        backbone.eval()
        z, first, second = (_directions(backbone(x)) for x in (self.plain, *self.views))
        backbone.train(training)
        return {
            "feature_std": float(z.std(0).mean() * z.shape[1] ** 0.5),
            "rankme": float(rankme(z)),
            "alignment": float(alignment(first, second)),
            "uniformity": float(uniformity(z)),
        }


def _directions(features):
    """Unit features (B, d); those of norm 0, which a dead network gives, are one point."""
    z = unit(features)
    z[(z == 0).all(1), 0] = 1
    return z
