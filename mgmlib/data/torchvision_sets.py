"""torchvision's classification sets, by lower-case name."""

import hashlib
import inspect
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .decode import to_rgb
from .folder import FileSource
from .images import Images

# name -> (torchvision's class, its splits; the one it is evaluated on comes last)
SETS = {
    "cifar10": ("CIFAR10", ("train", "test")),
    "cifar100": ("CIFAR100", ("train", "test")),
    "stl10": ("STL10", ("train", "test")),
    "imagenet": ("ImageNet", ("train", "val")),
    "imagenette": ("Imagenette", ("train", "val")),
    "places365": ("Places365", ("train-standard", "train-challenge", "val")),
    "mnist": ("MNIST", ("train", "test")),
    "fashionmnist": ("FashionMNIST", ("train", "test")),
    "kmnist": ("KMNIST", ("train", "test")),
    "usps": ("USPS", ("train", "test")),
    "svhn": ("SVHN", ("train", "extra", "test")),
    "gtsrb": ("GTSRB", ("train", "test")),
    "food101": ("Food101", ("train", "test")),
    "flowers102": ("Flowers102", ("train", "val", "test")),
    "oxfordiiitpet": ("OxfordIIITPet", ("trainval", "test")),
    "stanfordcars": ("StanfordCars", ("train", "test")),
    "fgvcaircraft": ("FGVCAircraft", ("train", "val", "trainval", "test")),
    "dtd": ("DTD", ("train", "val", "test")),
    "country211": ("Country211", ("train", "valid", "test")),
    "renderedsst2": ("RenderedSST2", ("train", "val", "test")),
    "eurosat": ("EuroSAT", ()),
    "sun397": ("SUN397", ()),
    "caltech101": ("Caltech101", ()),
    "caltech256": ("Caltech256", ()),
    "semeion": ("SEMEION", ()),
}


@dataclass(frozen=True, eq=False)
class DatasetSource:
    """A torchvision data set that gives (picture, label), each picture re-encoded as JPEG if so wished."""

    dataset: object
    jpeg_quality: int | None

    def read(self, i):
        """Image `i`, uint8 (3, H, W)."""
        from PIL import Image

        picture = self.dataset[i][0]
        if self.jpeg_quality is None:
            return to_rgb(picture)
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=self.jpeg_quality)
        return to_rgb(Image.open(encoded))

    def fingerprint(self, ids):
        """SHA-256 of the original pixels at `ids`, and the JPEG quality."""
        content = hashlib.sha256()
        for i in ids:
            picture = self.dataset[i][0]
            content.update(f"{picture.mode} {picture.size}".encode() + picture.tobytes())
        return f"{type(self.dataset).__name__} jpeg {self.jpeg_quality} {content.hexdigest()}"


def load_torchvision(
    name, split=None, *, root=None, download=True, jpeg_quality=75, background, max_pixels
) -> Images:
    """Images of a torchvision set; parameters as in `load_images`."""
    split = _known_split(name, split)
    root = Path(root or os.environ.get("MGMLIB_DATA") or "~/.cache/mgmlib/data").expanduser()
    dataset = _open(name, split, root, download)
    labels = _labels(dataset)
    files = _files(dataset)
    if files is None:
        source = DatasetSource(dataset, jpeg_quality if name == "cifar10" else None)
    else:
        source = FileSource(
            root, tuple(os.path.relpath(f, root) for f in files), tuple(background), max_pixels
        )
    title = f"{name}-{split}" if split else name
    return Images(title, labels, _classes(dataset, labels), np.arange(len(labels)), source=source)


def _known_split(name, split):
    _, splits = SETS[name]
    if split is None:
        return splits[-1] if splits else None
    if split not in splits:
        known = ", ".join(map(repr, splits)) or "no splits"
        raise ValueError(f"split={split!r}: {name!r} has {known}")
    return split


def _open(name, split, root: Path, download):
    from torchvision import datasets

    kind = getattr(datasets, SETS[name][0])
    accepted = inspect.signature(kind.__init__).parameters
    options = {}
    if "train" in accepted:
        options["train"] = split == "train"
    elif split is not None:
        options["split"] = split
    if "download" in accepted:
        options["download"] = download
    root.mkdir(parents=True, exist_ok=True)
    try:
        return kind(str(root), **options)
    except (OSError, RuntimeError, ValueError) as error:
        way = "and could not be fetched" if options.get("download") else "and is not fetched"
        raise RuntimeError(
            f"{name!r} is not whole in root={str(root)!r} {way} ({type(error).__name__}: {error}); put "
            f"torchvision's files for {kind.__name__} there, or name another root="
        ) from error


def _labels(dataset) -> np.ndarray:
    """Labels without decoding a picture: torchvision keeps them under several names."""
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name), dtype=np.int64)
    return np.array([label for _, label in dataset._samples], dtype=np.int64)


def _files(dataset):
    """Paths of the pictures, or None where the data set keeps pixels."""
    for name in ("_image_files", "_images", "imgs", "_samples"):
        items = getattr(dataset, name, None)
        if items:
            return [item[0] if isinstance(item, tuple) else item for item in items]
    return None


def _classes(dataset, labels) -> tuple[str, ...]:
    """Class names; ImageNet's come as tuples of synonyms, of which the first is kept."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        names = range(int(labels.max()) + 1)
    return tuple(str(name if not isinstance(name, tuple) else name[0]) for name in names)
