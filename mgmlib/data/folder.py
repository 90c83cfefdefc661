"""Any folder of images: a class per sub-folder, or flat."""

import hashlib
import os
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .decode import SUFFIXES, ImageError, decode, read_file
from .images import Images

SPLIT_NAMES = {  # what a folder of each split may be called
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, eq=False)
class FileSource:
    """Image files, read when asked for; `files` are relative to `root`."""

    root: Path
    files: tuple[str, ...]
    background: tuple[int, int, int]
    max_pixels: int

    def read(self, i):
        """Image `i`, uint8 (3, H, W)."""
        path = self.root / self.files[i]
        return decode(read_file(path), path, self.background, self.max_pixels)

    def fingerprint(self, ids):
        """Relative names and the SHA-256 of the bytes of the files at `ids`: each is read once, whole."""

        def line(i):
            return f"{self.files[i]} {hashlib.sha256(read_file(self.root / self.files[i])).hexdigest()}"

        with ThreadPoolExecutor() as pool:
            lines = list(pool.map(line, ids))
        return "\n".join([f"files over {tuple(self.background)}", *lines])

    def broken(self) -> dict[int, str]:
        """Position → reason of every file that does not decode."""

        def reason(i):
            try:
                self.read(i)
            except ImageError as error:
                return error.reason

        with ThreadPoolExecutor() as pool:
            reasons = list(pool.map(reason, range(len(self.files))))
        return {i: reason for i, reason in enumerate(reasons) if reason is not None}


def load_folder(root, *, split=None, background=(255, 255, 255), on_error="raise", max_pixels) -> Images:
    """Images of a folder: a class per sub-folder (searched in depth), or flat, then all of one class.

    Files and folders are taken in sorted order; hidden ones and files without an image's suffix are passed
    over; symbolic links are followed. A folder that holds only ``train``/``val``/``test`` folders needs
    `split`.
    """
    given = Path(root).expanduser()
    root = _split_folder(given, split)
    name = given.resolve().name if split is None else f"{given.resolve().name}-{root.name}"
    files, faults = _walk(root)
    loose = [file for file in files if os.sep not in file]
    if loose and len(loose) < len(files):
        what = f"loose image beside {_count(len(files) - len(loose), 'image')} in class folders"
        faults += [(file, what) for file in loose]
        files = [file for file in files if os.sep in file]
        loose = []
    if faults and on_error == "raise":
        file, reason = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ImageError(root / file, f"{reason}{more}; on_error='skip' leaves such files out")
    if on_error == "skip":
        broken = FileSource(root, tuple(files), background, max_pixels).broken()
        faults += [(files[i], reason) for i, reason in broken.items()]
        files = [file for i, file in enumerate(files) if i not in broken]
    if not files:
        raise ValueError(f"{root}: no images here; {_contents(root, faults)}")
    if faults:
        first = f"{faults[0][0]}: {faults[0][1]}"
        warnings.warn(
            f"{root}: {_count(len(faults), 'file')} skipped, listed in `skipped`; {first}", stacklevel=4
        )
    of_file = [name if loose else file.split(os.sep, 1)[0] for file in files]
    classes = tuple(sorted(set(of_file)))
    labels = np.searchsorted(np.array(classes), np.array(of_file))
    source = FileSource(root, tuple(files), tuple(background), max_pixels)
    return Images(name, labels, classes, np.arange(len(files)), source, tuple(sorted(faults)))


def _split_folder(root: Path, split) -> Path:
    """Choose the folder to read: `root`, or one of its split folders."""
    if not root.exists():
        parent = next((p for p in root.parents if p.exists()), root.parent)
        held = ", ".join(sorted(p.name for p in parent.iterdir() if p.is_dir())[:8]) or "no folder"
        raise FileNotFoundError(f"{root}: no such folder; {parent} holds: {held}")
    if not root.is_dir():
        raise NotADirectoryError(f"{root}: is a file, expected a folder of images")
    names = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    known = {alias: kind for kind, aliases in SPLIT_NAMES.items() for alias in aliases}
    splits = {known[name.lower()]: name for name in names if name.lower() in known and (root / name).is_dir()}
    if split is not None:
        wanted = known.get(str(split).lower())
        if wanted not in splits:
            raise ValueError(
                f"split={split!r}: {root} holds {_listed(names)}; expected a folder of that name in it"
            )
        return root / splits[wanted]
    folders = [name for name in names if (root / name).is_dir()]
    loose = any(Path(name).suffix.lower() in SUFFIXES for name in names)
    if splits and not loose and all(name.lower() in known for name in folders):
        raise ValueError(
            f"{root} holds the splits {_listed(folders)}: pass split=, or the folder of one split"
        )
    return root


def _walk(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Image files below `root`, sorted, and what is wrong with the tree as (path, reason); both relative."""
    files, faults = [], []

    def visit(folder: Path, above: tuple[Path, ...]):
        real = folder.resolve()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            path = folder / entry.name
            name = str(path.relative_to(root))
            image = path.suffix.lower() in SUFFIXES
            try:
                is_folder = entry.is_dir() or (
                    not (image or entry.is_file()) and path.resolve(strict=True).is_dir()
                )
                if not is_folder and image:
                    path.stat()  # fails on a link that leads nowhere or round in circles
            except (OSError, RuntimeError) as error:
                if image:
                    faults.append((name, f"broken link: {getattr(error, 'strerror', None) or error}"))
                continue
            if not is_folder:
                files.extend([name] if image else [])
            elif image:
                faults.append((name, "is a directory, though its name is that of an image"))
            elif path.resolve() in (*above, real):
                faults.append((name, "symbolic link to a folder that holds it: a loop"))
            else:
                try:
                    visit(path, (*above, real))
                except PermissionError as error:
                    faults.append((name, f"cannot be read: {error.strerror}"))

    visit(root, ())
    return files, faults


def _contents(root: Path, faults) -> str:
    """Say what a folder without images does hold."""
    if faults:
        return f"{_count(len(faults), 'file')} skipped, the first {faults[0][0]}: {faults[0][1]}"
    kinds = Counter(Path(file).suffix or "no suffix" for _, _, held in os.walk(root) for file in held)
    held = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common(6)) or "no files"
    return f"it holds {held}; images end in {' '.join(SUFFIXES)}"


def _listed(names) -> str:
    return ", ".join(map(repr, names[:8])) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
