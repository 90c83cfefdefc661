"""`fashion`: a stratified subset of Fashion-MNIST, 28 px grey; its own train and test images stay apart."""

import gzip
from pathlib import Path

import numpy as np

ROOT = "usr/share/datasets/fashion-mnist"
CLASSES = (
    *("t-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle-boot"),
)
PER_CLASS = {"train": 480, "t10k": 120}  # 6,000 images: a fifth for the test


def read_idx(path: Path) -> np.ndarray:
    """Array of a gzipped IDX file of unsigned bytes (LeCun's MNIST format)."""
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\0\0\x08":
        raise ValueError(f"{path}: starts with {content[:4]!r}, expected an IDX file of unsigned bytes")
    shape = np.frombuffer(content, ">u4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def build(root: Path, per_class=None) -> dict:
    """Pictures, labels, split, classes and keys: evenly spaced images of each class, none twice."""
    pictures, labels, split, keys = [], [], [], []
    for number, (part, wanted) in enumerate((per_class or PER_CLASS).items()):
        images = read_idx(root / f"{part}-images-idx3-ubyte.gz")
        targets = read_idx(root / f"{part}-labels-idx1-ubyte.gz")
        _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
        unique = np.zeros(len(images), bool)
        unique[first] = True
        for label in range(len(CLASSES)):
            members = np.flatnonzero(unique & (targets == label))
            for i in members[np.arange(wanted) * len(members) // wanted]:
                pictures.append(images[i])
                labels.append(label)
                split.append(number)
                keys.append(f"{part}/{i}")
    return {"pictures": pictures, "labels": labels, "split": split, "classes": CLASSES, "keys": keys}
