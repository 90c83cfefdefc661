"""A labelled, immutable sequence of RGB images, decoded when they are asked for."""

import hashlib
import json
import operator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch


class Source(Protocol):
    """Where pixels come from: what `Images` needs to know of a pack, a folder or a data set."""

    def read(self, i: int) -> torch.Tensor:
        """Image at position `i` of the full source, uint8 (3, H, W)."""

    def fingerprint(self, ids: np.ndarray) -> str:
        """Text that changes whenever the pixels of the images at `ids` could."""


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled, indexable, immutable sequence of RGB images.

    ``images[i]`` is a uint8 tensor (3, H, W); H and W may differ from image to image.

    Parameters
    ----------
    name : str
        What the images are called in tables and figures.
    labels : (N,) int64
        Position of each image's class in `classes`.
    classes : tuple of str
        Class names; a selection keeps all of them, also those it has no image of.
    ids : (N,) int64
        Position of each image in the full source: random views are seeded by it, so an image has the same
        views in whatever selection it is met.
    source : Source
        Reads the pixels.
    skipped : tuple of (file, reason)
        Files that could not be read and were left out, each with the reason.
    """

    name: str
    labels: np.ndarray
    classes: tuple[str, ...]
    ids: np.ndarray
    source: Source
    skipped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self):
        for field in ("labels", "ids"):
            values = np.array(getattr(self, field), dtype=np.int64)
            values.setflags(write=False)
            object.__setattr__(self, field, values)
        if self.labels.ndim != 1 or self.labels.shape != self.ids.shape:
            raise ValueError(f"labels {self.labels.shape} and ids {self.ids.shape}: expected one (N,) shape")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            low, high = self.labels.min(), self.labels.max()
            raise ValueError(
                f"labels run from {low} to {high}: expected 0 to {len(self.classes) - 1} (`classes`)"
            )

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, i) -> torch.Tensor:
        position = operator.index(i)
        if not -len(self) <= position < len(self):
            raise IndexError(f"image {position} of {self.name!r}: it has {len(self)} images")
        return self.source.read(int(self.ids[position]))

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"Images({self.name!r}: {len(self)} images, {len(self.classes)} classes{skipped})"

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of what is selected: pixels, names, labels and ids; it keys the embedding cache."""
        parts = [self.source.fingerprint(self.ids), json.dumps(list(self.classes))]
        content = "\n".join(parts).encode() + self.ids.tobytes() + self.labels.tobytes()
        return hashlib.sha256(content).hexdigest()

    def subset(self, indices) -> "Images":
        """Select the images at `indices` ((n,) int positions, or an (N,) bool mask), in that order."""
        index = np.asarray(indices)
        if index.size == 0:
            index = index.astype(np.int64)
        if index.ndim != 1 or index.dtype.kind not in "iub":
            raise TypeError(
                f"indices: a {index.dtype} array of shape {index.shape}; expected (n,) int or (N,) bool"
            )
        if index.dtype.kind == "b":
            if len(index) != len(self):
                raise IndexError(f"indices: a mask of {len(index)} for {len(self)} images")
            index = np.flatnonzero(index)
        if len(index) and not -len(self) <= index.min() <= index.max() < len(self):
            raise IndexError(
                f"indices run from {index.min()} to {index.max()}: {self.name!r} has {len(self)} images"
            )
        return replace(self, labels=self.labels[index], ids=self.ids[index])

    def per_class(self, n: int, seed: int = 0) -> "Images":
        """At most `n` images of each class, drawn without replacement, in the order of the source."""
        if operator.index(n) < 1:
            raise ValueError(f"n={n}: expected at least 1 image per class")
        chosen = []
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label)
            rng = np.random.default_rng([seed, label])
            chosen.append(rng.permutation(members)[:n])
        return self.subset(np.sort(np.concatenate(chosen)) if chosen else [])

    @classmethod
    def from_tensor(cls, x, labels=None, name: str = "tensor") -> "Images":
        """Images from a tensor or array.

        Parameters
        ----------
        x : (N, 3, H, W) uint8, or float in [0, 1]
        labels : (N,) int, optional
            Class numbers from 0, which also name the classes. Without, all images are of one class, `name`.
        name : str
        """
        pixels = _as_uint8(torch.as_tensor(x))
        if labels is None:
            values, classes = np.zeros(len(pixels), np.int64), (name,)
        else:
            values = np.asarray(labels)
            if values.shape != (len(pixels),) or values.dtype.kind not in "iu" or (values < 0).any():
                raise ValueError(
                    f"labels: {values.dtype} {values.shape}; expected ({len(pixels)},) ints, all >= 0"
                )
            classes = tuple(str(c) for c in range(values.max(initial=-1) + 1))
        return cls(name, values, classes, np.arange(len(pixels)), source=TensorSource(pixels))


@dataclass(frozen=True, eq=False)
class TensorSource:
    """Images that are in memory already: `pixels` (N, 3, H, W) uint8."""

    pixels: torch.Tensor

    def read(self, i):
        """Image `i`, uint8 (3, H, W)."""
        return self.pixels[i].clone()

    def fingerprint(self, ids):
        """Shape and SHA-256 of the pixels at `ids`."""
        chosen = self.pixels[torch.tensor(np.asarray(ids))]
        return f"tensor {tuple(chosen.shape)} {hashlib.sha256(chosen.contiguous().numpy()).hexdigest()}"


def _as_uint8(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4 or x.shape[1] != 3 or 0 in x.shape[2:]:
        raise ValueError(f"x has shape {tuple(x.shape)}: expected (N, 3, H, W)")
    x = x.detach().cpu()
    if x.dtype == torch.uint8:
        return x.clone()
    if not x.is_floating_point():
        raise TypeError(f"x is {x.dtype}: expected uint8, or float in [0, 1]")
    if x.numel() and not (x.min() >= 0 and x.max() <= 1):  # false for NaN too
        raise ValueError(f"x has values from {x.min():.4g} to {x.max():.4g}: expected float in [0, 1]")
    return (x.float() * 255).round().to(torch.uint8)
