"""Where images come from: packs that the package carries, torchvision's sets, scikit-learn's, any folder."""

import difflib
import os
from pathlib import Path

from .decode import MAX_PIXELS, ImageError
from .images import Images

__all__ = ["ImageError", "Images", "available", "load_images"]

PACKS = ("clipart", "noto", "twemoji", "fashion")
SKLEARN = ("digits", "photos")


def available() -> dict[str, tuple[str, ...]]:
    """Names that `load_images` knows, by where the images come from."""
    from .torchvision_sets import SETS

    return {"packs": PACKS, "scikit-learn": SKLEARN, "torchvision": tuple(SETS)}


def load_images(
    source,
    *,
    split=None,
    background=(255, 255, 255),
    on_error="raise",
    max_pixels=MAX_PIXELS,
    jpeg_quality=75,
    root=None,
    download=True,
) -> Images:
    """Labelled RGB images, by name or from a folder.

    Parameters
    ----------
    source : str or Path
        A pack ("clipart", "noto", "twemoji", "fashion"), one of scikit-learn's sets ("digits", "photos"), a
        torchvision classification set by its lower-case name ("cifar10", "stl10", "imagenet", ...), or the
        path of a folder. A known name comes before a folder of that name: write "./clipart" for the folder.
    split : str, optional
        "train" or "test" of a pack or of digits (None: all); a split of a torchvision set (None: the one that
        it is evaluated on); for a folder, the sub-folder that holds the split.
    background : (r, g, b) in 0..255
        Transparent pixels are composited over it.
    on_error : "raise" or "skip"
        Folders: "raise" meets a broken file with an `ImageError` that names it, when that image is asked for;
        "skip" decodes every file once now, leaves the broken ones out, lists them in ``images.skipped`` and
        warns with their count.
    max_pixels : int
        Files of more pixels (W x H) are errors. Any smaller size is accepted, down to 1 x 1.
    jpeg_quality : int or None
        "cifar10" only: re-encode each image as JPEG of this quality, like the copy that the pocket zoo was
        trained on; None keeps the originals.
    root, download
        torchvision sets: where the files are (default: ``$MGMLIB_DATA``, else ``~/.cache/mgmlib/data``), and
        whether to fetch what is missing.

    Returns
    -------
    Images
    """
    _check(background, on_error, max_pixels)
    known = {name: kind for kind, names in available().items() for name in names}
    kind = known.get(source) if isinstance(source, str) else None
    if jpeg_quality not in (75, None) and source != "cifar10":
        raise ValueError(f"jpeg_quality={jpeg_quality} with {source!r}: only 'cifar10' is re-encoded")
    if split is not None and kind in ("packs", "scikit-learn"):
        _check_split(source, split)
    if kind == "packs":
        from .packs import load_pack

        return load_pack(source, split, background)
    if kind == "scikit-learn":
        from . import sklearn_sets

        return sklearn_sets.load_photos() if source == "photos" else sklearn_sets.load_digits(split)
    if kind == "torchvision":
        from .torchvision_sets import load_torchvision

        where, files = (
            {"root": root, "download": download},
            {"background": background, "max_pixels": max_pixels},
        )
        return load_torchvision(source, split, **where, **files, jpeg_quality=jpeg_quality)
    if not _is_path(source):
        raise _unknown(source, known)
    from .folder import load_folder

    return load_folder(source, split=split, background=background, on_error=on_error, max_pixels=max_pixels)


def _is_path(source) -> bool:
    """Whether `source` can only mean a folder: a Path, text with a separator, or the name of what exists."""
    if isinstance(source, os.PathLike):
        return True
    if not isinstance(source, str):
        raise TypeError(
            f"source is a {type(source).__name__}: expected a name or a path (tensors: Images.from_tensor)"
        )
    return os.sep in source or source.startswith(("~", ".")) or Path(source).exists()


def _unknown(source, known) -> ValueError:
    close = difflib.get_close_matches(source.lower(), known, n=3, cutoff=0.6)
    hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
    listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in available().items())
    return ValueError(
        f"no images named {source!r}, and no such folder: {hint}Known are {listed}; or a folder's path"
    )


def _check(background, on_error, max_pixels):
    if len(background) != 3 or not all(isinstance(c, int) and 0 <= c <= 255 for c in background):
        raise ValueError(f"background={background!r}: expected three ints in 0..255")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: expected 'raise' or 'skip'")
    if not max_pixels >= 1:
        raise ValueError(f"max_pixels={max_pixels!r}: expected at least 1")


def _check_split(name, split):
    from .split import SPLITS

    if name == "photos":
        raise ValueError(f"split={split!r}: 'photos' has no splits")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: {name!r} has {', '.join(map(repr, SPLITS))} (None: all)")
