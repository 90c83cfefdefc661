"""Packs: small image sets that the package carries, one file each, verified before use.

A pack is an ``.npz`` without object arrays: `blobs` (uint8, one lossless WebP file after another), `offsets`
(N+1,), `labels` (N,) with -1 for an image of no class, `split` (N,) with 0 train and 1 test, and `header`,
JSON text that holds the class names and, for each image, its name in the source.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from mgmlib.atomic import write_whole

from .decode import to_rgb
from .images import Images
from .split import SPLITS

FOLDER = Path(__file__).parents[1] / "assets" / "packs"
CHECKSUMS = "SHA256SUMS"  # beside the packs, in the form that `sha256sum -c` reads


@dataclass(frozen=True, eq=False)
class Pack:
    """The whole of a pack file.

    `labels` (N,) int64 is -1 for images of no class; `split` (N,) uint8 is 0 for train and 1 for test; `keys`
    name the images as the source does; `sha256` is that of the file.
    """

    name: str
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    labels: np.ndarray
    split: np.ndarray
    offsets: np.ndarray
    blobs: np.ndarray
    sha256: str

    def __len__(self):
        return len(self.keys)

    def picture(self, i: int):
        """Image `i` as a Pillow picture: RGBA for cut-outs."""
        from PIL import Image

        picture = Image.open(io.BytesIO(self.blobs[self.offsets[i] : self.offsets[i + 1]].tobytes()))
        picture.load()
        return picture

    def rgba(self, indices) -> np.ndarray:
        """Cut-outs at `indices`, uint8 (n, H, W, 4), alpha not premultiplied, no colour where it is 0."""
        return np.stack([np.asarray(self.picture(i).convert("RGBA")) for i in indices])


@dataclass(frozen=True, eq=False)
class PackSource:
    """Images of a pack over a flat background."""

    pack: Pack
    background: tuple[int, int, int]

    def read(self, i):
        """Image `i`, uint8 (3, H, W)."""
        return to_rgb(self.pack.picture(i), self.background)

    def fingerprint(self, ids):
        """SHA-256 of the pack and the background; the ids are hashed by `Images`."""
        return f"pack {self.pack.sha256} over {self.background}"

    def __reduce__(self):  # a worker process reads the file again instead of receiving all of it
        return _reopen, (self.pack.name, self.pack.sha256, self.background)


def load_pack(name: str, split=None, background=(255, 255, 255)) -> Images:
    """Load the images of a pack's classes; `split` is None (all), "train" or "test"."""
    pack = open_pack(name)
    chosen = pack.labels >= 0
    if split is not None:
        chosen &= pack.split == SPLITS.index(split)
    ids = np.flatnonzero(chosen)
    title = f"{name}-{split}" if split else name
    return Images(title, pack.labels[ids], pack.classes, ids, source=PackSource(pack, tuple(background)))


def open_pack(name: str) -> Pack:
    """Read a whole pack, verified: also its images of no class, and all of them with their alpha."""
    return _open(str(FOLDER / f"{name}.npz"))


@lru_cache(maxsize=8)
def _open(path: str) -> Pack:
    path = Path(path)
    content = path.read_bytes()
    met, expected = hashlib.sha256(content).hexdigest(), checksums(path.parent).get(path.name)
    if met != expected:
        raise ValueError(
            f"{path}: SHA-256 is {met}, {CHECKSUMS} says {expected}; restore or rebuild the pack"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        labels, split = arrays["labels"].astype(np.int64), arrays["split"]
        offsets, blobs = arrays["offsets"], arrays["blobs"]
    for array in (labels, split, offsets, blobs):
        array.setflags(write=False)
    classes, keys = tuple(header["classes"]), tuple(header["keys"])
    return Pack(header["name"], classes, keys, labels, split, offsets, blobs, met)


def _reopen(name, sha256, background) -> PackSource:
    pack = open_pack(name)
    if pack.sha256 != sha256:
        raise ValueError(
            f"pack {name!r} has changed on disk since it was loaded: {pack.sha256} is not {sha256}"
        )
    return PackSource(pack, background)


def checksums(folder=FOLDER) -> dict[str, str]:
    """Committed SHA-256 of each pack file, by file name."""
    lines = (Path(folder) / CHECKSUMS).read_text().splitlines()
    return {file: digest for digest, file in (line.split("  ") for line in lines)}


def write_pack(folder, name: str, pictures, labels, split, classes, keys) -> str:
    """Write a pack and its line in the table of checksums; the same input gives the same bytes.

    Parameters
    ----------
    folder : path
    name : str
    pictures : list of (H, W, 4) or (H, W) uint8
    labels, split : (N,) int
    classes, keys : list of str

    Returns
    -------
    str
        SHA-256 of the file.
    """
    blobs = [_webp(picture) for picture in pictures]
    header = json.dumps({"name": name, "classes": list(classes), "keys": list(keys)}, ensure_ascii=False)
    arrays = {
        "header": np.frombuffer(header.encode(), np.uint8),
        "labels": np.asarray(labels, np.int16),
        "split": np.asarray(split, np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)], dtype=np.int64),
        "blobs": np.frombuffer(b"".join(blobs), np.uint8),
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    folder = Path(folder)
    write_whole(folder / f"{name}.npz", content.getvalue())
    known = checksums(folder) if (folder / CHECKSUMS).exists() else {}
    known[f"{name}.npz"] = digest
    write_whole(folder / CHECKSUMS, "".join(f"{d}  {f}\n" for f, d in sorted(known.items())))
    return digest


def _webp(picture: np.ndarray) -> bytes:
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "WEBP", lossless=True, quality=100, method=6, exact=True)
    return encoded.getvalue()
