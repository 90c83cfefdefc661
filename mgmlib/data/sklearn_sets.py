"""The images that scikit-learn carries: 1,797 handwritten digits and two photographs."""

from pathlib import Path

import numpy as np
import torch

from .images import Images, TensorSource
from .split import SPLITS, stratified_split


def load_digits(split=None) -> Images:
    """Load the handwritten digits, 8 x 8 px grey (Alpaydin & Kaynak 1998); `split`: None, "train", "test"."""
    from sklearn.datasets import load_digits as load

    bunch = load()
    grey = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # the counts run from 0 to 16
    labels = bunch.target.astype(np.int64)
    ids = np.arange(len(labels))
    if split is not None:
        ids = ids[stratified_split(labels, [str(i) for i in ids]) == SPLITS.index(split)]
    pixels = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    classes = tuple(str(name) for name in bunch.target_names)
    return Images("digits", labels[ids], classes, ids, source=TensorSource(pixels))


class _Photographs:
    """Pictures of unequal size, in memory: `pictures` is a list of uint8 (3, H, W)."""

    def __init__(self, pictures):
        self.pictures = pictures

    def read(self, i):
        return self.pictures[i].clone()

    def fingerprint(self, ids):
        return " ".join(TensorSource(self.pictures[i][None]).fingerprint([0]) for i in ids)


def load_photos() -> Images:
    """Load scikit-learn's two sample photographs, 427 x 640 px: a palace and a flower."""
    from sklearn.datasets import load_sample_images

    bunch = load_sample_images()
    pictures = [torch.from_numpy(picture.transpose(2, 0, 1).copy()) for picture in bunch.images]
    classes = tuple(Path(file).stem for file in bunch.filenames)
    ids = np.arange(len(pictures))
    return Images("photos", ids, classes, ids, source=_Photographs(pictures))
