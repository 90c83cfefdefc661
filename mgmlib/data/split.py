"""Train/test splits that depend on nothing but the names of the objects."""

import hashlib
from collections import defaultdict

import numpy as np

SPLITS = ("train", "test")


def stratified_split(labels, objects, test_fraction: float = 0.2, salt: str = "mgm") -> np.ndarray:
    """Assign each image to 0 (train) or 1 (test): a fifth of each class's objects, whole objects only.

    Objects are ranked within their class by the SHA-256 of their name, so the split needs no random generator
    and is the same on every machine.

    Parameters
    ----------
    labels : (N,) hashable
        Class of each image.
    objects : (N,) str
        What is pictured; images of one object (of one class) stay together.
    test_fraction : float in (0, 1)
    salt : str
        Another text gives another split.

    Returns
    -------
    (N,) uint8
    """
    of_class = defaultdict(set)
    for label, name in zip(labels, objects, strict=True):
        of_class[label].add(name)
    test = set()
    for label, names in of_class.items():
        ranked = sorted(names, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).digest())
        test.update((label, name) for name in ranked[: round(test_fraction * len(ranked))])
    return np.array([(pair in test) for pair in zip(labels, objects, strict=True)], np.uint8)
