"""`noto` and `twemoji`: the same emoji in two styles, with the same labels and the same split."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from cutouts import clean, first_of_looks
from PIL import Image

FEWEST = 15  # emoji that a sub-category needs to be a class: 30 pictures with both styles together
STYLES = {"noto": "google", "twemoji": "twitter"}
PEOPLE = {"1F468": "1F9D1", "1F469": "1F9D1", "1F474": "1F9D3", "1F475": "1F9D3"}  # man, woman -> person
MODIFIERS = {"2640", "2642", "27A1", "FE0F", "200D"}  # female, male, to the right, as a picture, joined


def object_of(unified: str) -> str:
    """Name the object of an emoji's code points: gender and direction make no object of their own."""
    return "-".join(PEOPLE.get(point, point) for point in unified.split("-") if point not in MODIFIERS)


def read_styles(roots: dict[str, Path]) -> tuple[list[dict], dict[str, np.ndarray]]:
    """Emoji that every style draws, each looking different from all others in every style.

    `roots` maps a pack's name to its unpacked npm package. Skin-tone variants are left out, with the swatches
    that make them.

    Returns
    -------
    list of N entries of ``emoji.json``, in its order by code points
    dict of pack name -> (N, 64, 64, 4) uint8
    """
    root = next(iter(roots.values()))
    entries = json.loads((root / "emoji.json").read_text())
    entries = [e for e in entries if e["category"] != "Component"]
    entries = [e for e in entries if all(e[f"has_img_{STYLES[name]}"] for name in roots)]
    entries.sort(key=lambda e: e["unified"])
    drawn = {
        name: np.stack([_read(root / "img" / STYLES[name] / "64" / e["image"]) for e in entries])
        for name, root in roots.items()
    }
    unique = np.ones(len(entries), bool)
    for pictures in drawn.values():
        unique &= first_of_looks(pictures, 0.0) == np.arange(len(entries))
    kept = [e for e, keep in zip(entries, unique, strict=True) if keep]
    return kept, {name: pictures[unique] for name, pictures in drawn.items()}


def build(roots: dict[str, Path], fewest: int = FEWEST) -> dict[str, dict]:
    """Content of each pack in `roots`; sub-categories of at least `fewest` emoji are its classes."""
    entries, drawn = read_styles(roots)
    sizes = Counter(e["subcategory"] for e in entries)
    classes = sorted(name for name, size in sizes.items() if size >= fewest)
    common = {
        "labels": np.array([classes.index(s) if (s := e["subcategory"]) in classes else -1 for e in entries]),
        "objects": [object_of(e["unified"]) for e in entries],
        "classes": classes,
        "keys": [e["unified"].lower() for e in entries],
    }
    return {name: {"pictures": list(pictures), **common} for name, pictures in drawn.items()}


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        if picture.size != (64, 64):
            raise ValueError(f"{path}: {picture.size} px, expected 64 x 64")
        return clean(np.asarray(picture.convert("RGBA")))
