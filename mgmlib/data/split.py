"""Train/test splits that depend on nothing but the names of the objects."""

import hashlib
from collections import Counter, defaultdict

import numpy as np

SPLITS = ("train", "test")


def stratified_split(labels, objects, test_fraction: float = 0.2, salt: str = "mgm") -> np.ndarray:
    """Assign each image to 0 (train) or 1 (test): a fifth of each class, whole objects only.

    Objects go to the test set in the order of the SHA-256 of their names while there is room, so the split
    needs no random generator and is the same on every machine.

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
    pairs = list(zip(labels, objects, strict=True))
    sizes = defaultdict(Counter)  # class -> object -> number of images
    for label, name in pairs:
        sizes[label][name] += 1
    test = set()
    for label, size in sizes.items():
        room = round(test_fraction * size.total())
        for name in sorted(size, key=lambda name: hashlib.sha256(f"{salt}/{name}".encode()).digest()):
            if size[name] <= room:
                test.add((label, name))
                room -= size[name]
    return np.array([pair in test for pair in pairs], np.uint8)
