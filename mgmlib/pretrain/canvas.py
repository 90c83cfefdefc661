"""Training images as one square size, ready to be cut into views."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch


class Canvas:
    """Images as uint8 squares (N, 3, side, side): short side resized to ``side``, then the centre.

    Kept in memory where they take less than ``memory`` bytes, else decoded again for each batch.

    Parameters
    ----------
    images : Images
    side : int
        In pixels.
    memory : int
        Bytes.
    workers : int
        Threads that decode.
    """

    def __init__(self, images, side, memory=4 << 30, workers=2):
        self.images, self.side, self.labels = images, side, torch.as_tensor(images.labels.copy())
        self._pool = ThreadPoolExecutor(workers)
        self._pixels = None
        if len(images) * 3 * side * side <= memory:
            self._pixels = self._decode(range(len(images)))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        """Squares (B, 3, side, side) uint8 at positions ``index`` (B,)."""
        if self._pixels is None:
            return self._decode(index)
        return self._pixels[torch.as_tensor(np.asarray(index))]

    def _decode(self, index):
        pixels = torch.empty(len(index), 3, self.side, self.side, dtype=torch.uint8)
        for i, square in enumerate(self._pool.map(self._square, index, chunksize=64)):
            pixels[i] = square
        return pixels

    def _square(self, i):
        from torchvision.transforms.v2 import functional as F

        image = self.images[int(i)]
        if image.shape[1:] == (self.side, self.side):
            return image
        return F.center_crop(F.resize(image, [self.side], antialias=True), [self.side, self.side])
