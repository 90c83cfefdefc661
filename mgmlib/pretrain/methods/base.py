"""What the trainer asks of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from mgmlib.pretrain.views import View


@dataclass(frozen=True)
class Start:
    """What every method is built from.

    Parameters
    ----------
    backbone : torch.nn.Module
        Normalised images to features (B, ``backbone.dim``).
    n_images, n_classes : int
        Of the training set.
    generator : torch.Generator
        For random buffers.
    """

    backbone: nn.Module
    n_images: int
    n_classes: int
    generator: torch.Generator


@dataclass
class Batch:
    """What a loss may know besides the views.

    Parameters
    ----------
    index : torch.Tensor (B,) int64
        Position of each image in the training set.
    labels : torch.Tensor (B,) int64
        Only `Supervised` reads them.
    progress : float in [0, 1]
        How much of the training is done.
    rng : torch.Generator
        For whatever the loss draws.
    """

    index: torch.Tensor
    labels: torch.Tensor
    progress: float
    rng: torch.Generator


class Method(nn.Module):
    """A backbone with all that a method trains and remembers. Parameters are trained, buffers remembered.

    A method defines ``views``, how it renders each image, builds its heads in ``__init__`` (weights come
    from the global generator, which the trainer seeds; random buffers from ``start.generator``) and gives
    its loss in ``forward``. Every hyper-parameter is a keyword of ``__init__``.
    """

    views: ClassVar[tuple[View, ...]]

    def __init__(self, start):
        super().__init__()
        self.backbone, self.dim, self.n_images = start.backbone, start.backbone.dim, start.n_images

    def forward(self, views, batch):
        """Loss of one batch; ``views`` holds a normalised (B, 3, S, S) for each of ``self.views``."""
        raise NotImplementedError

    def after_step(self, progress):
        """What follows the optimiser's step, such as a momentum twin."""

    def start_epoch(self, progress, rng):
        """What happens before each pass over the images, such as clustering."""
