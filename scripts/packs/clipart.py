"""`clipart`: cut-outs of openclipart-png, by curated folders of its tree."""

import re
from pathlib import Path

import numpy as np
from clipart_excluded import EXCLUDED, MISPLACED
from cutouts import alike, cut_out, first_of_looks
from PIL import Image

ROOT = "usr/share/openclipart/png"
FOLDERS = {  # folder, with its sub-folders -> class
    "animals/mammals": "mammal",
    "animals/birds": "bird",
    "animals/bugs": "bug",
    "animals/fish": "fish",
    "food/fruit": "fruit",
    "food/desserts": "dessert",
    "food/beverages": "beverage",
    "food/breads_and_carbs": "bread",
    "food/meats_and_eggs": "meat-and-egg",
    "plants/flowers": "flower",
    "plants/trees": "tree",
    "transportation/vehicles": "vehicle",
    "transportation/boating": "boat",
    "transportation/roadsigns": "roadsign",
    "buildings/homes": "home",
    "computer/hardware": "computer",
    "recreation/sports": "sport",
    "recreation/music": "music",
    "recreation/games": "game",
    "recreation/toys": "toy",
    "recreation/party": "party",
    "people/clothing": "clothing",
    "people/smilies": "smiley",
    "signs_and_symbols/flags/africa": "flag",  # two continents: all 500 flags would be a quarter of the pack
    "signs_and_symbols/flags/asia": "flag",
    "signs_and_symbols/weather": "weather",
    "signs_and_symbols/clocks": "clock",
    "tools": "tool",
    "education/books": "book",
}
TOO_LARGE = 100_000_000  # pixels: one road sign of 20,990 x 29,700 would need 2.5 GB
SAME_LOOKS = 0.015  # `cutouts.alike` on colour and alpha: one drawing, saved twice
SAME_OUTLINE = 0.05  # on alpha alone: one drawing, in several colours or filled and unfilled
ONE_OUTLINE = ("flag", "roadsign")  # classes whose different objects share an outline


def collect(root: Path, folders=None) -> list[tuple[str, str, Path]]:
    """List (class, name, file) of every drawing, sorted; a file reached over several links counts once."""
    found = {}
    for folder, label in (folders or FOLDERS).items():
        for path in sorted((root / folder).rglob("*.png")):
            name = path.relative_to(root).as_posix()
            if not path.is_file() or name in MISPLACED:
                continue
            linked = path.is_symlink()
            real = path.resolve()
            if real not in found or (
                found[real][0] and not linked
            ):  # the folder that holds it names its class
                found[real] = (linked, label, name, path)
    return sorted(entry[1:] for entry in found.values())


def same_objects(stack: np.ndarray, labels: np.ndarray, keys: list[str]) -> list[str]:
    """Name each drawing's object: variants (recoloured, filled or not, ``_bw`` in its name) share one."""
    parent = list(range(len(keys)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    def join(i, j):
        first, second = sorted((root(i), root(j)))
        parent[second] = first

    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        parts = (0, 1, 2, 3) if keys[members[0]].startswith(_folders_of(ONE_OUTLINE)) else (3,)
        for i, j in alike(stack[members], SAME_OUTLINE, parts):
            join(members[i], members[j])
        for i in members:
            plain = re.split(r"_bw(?=_|\.)", keys[i])[0]
            if plain != keys[i]:
                for j in members:
                    if re.fullmatch(re.escape(plain) + r"[_.].*", keys[j]):
                        join(i, j)
    return [keys[root(i)] for i in range(len(keys))]


def build(root: Path, folders=None, excluded=EXCLUDED) -> dict:
    """Pictures, labels, objects, classes and keys of the pack; `root` is the folder of drawings."""
    Image.MAX_IMAGE_PIXELS = None  # the package is verified; TOO_LARGE is looked at below
    classes = sorted(set((folders or FOLDERS).values()))
    pictures, labels, keys = [], [], []
    for label, name, path in collect(root, folders):
        with Image.open(path) as picture:
            cut = cut_out(picture) if picture.width * picture.height <= TOO_LARGE else None
        if cut is not None:
            pictures.append(cut)
            labels.append(classes.index(label))
            keys.append(name)
    stack, labels = np.stack(pictures), np.array(labels)
    first = first_of_looks(stack, SAME_LOOKS)
    refused = np.array([name.startswith(tuple(excluded)) for name in keys])
    kept = np.flatnonzero((first == np.arange(len(stack))) & ~np.isin(first, first[refused]))
    stack, labels, keys = stack[kept], labels[kept], [keys[i] for i in kept]
    objects = same_objects(stack, labels, keys)
    return {"pictures": list(stack), "labels": labels, "objects": objects, "classes": classes, "keys": keys}


def _folders_of(classes) -> tuple[str, ...]:
    return tuple(folder for folder, label in FOLDERS.items() if label in classes)
