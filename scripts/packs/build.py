"""Build the image packs from their pinned sources.

usage: python scripts/packs/build.py [--sources FOLDER] [clipart] [noto] [twemoji] [fashion]

Fetches what is missing (300 MB, with apt-get and npm) into FOLDER (default: ~/.cache/mgmlib/sources),
verifies it, and writes packs, checksums and provenance into mgmlib/assets/packs. Takes about 10 minutes. The
same sources, Pillow and libwebp give the same bytes.
"""

import argparse
import json
import sys
from collections import Counter
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(HERE)]

import clipart  # noqa: E402
import emoji  # noqa: E402
import fashion  # noqa: E402
from sources import FASHION, NOTO, OPENCLIPART, TWEMOJI, unpack  # noqa: E402

from mgmlib.data.packs import FOLDER, write_pack  # noqa: E402
from mgmlib.data.split import SPLITS, stratified_split  # noqa: E402

PACKS = {  # name -> (source, licence of the images, who made them)
    "clipart": (
        OPENCLIPART,
        "public domain (CC Public Domain Dedication)",
        "Open Clip Art Library contributors",
    ),
    "noto": (NOTO, "Apache-2.0", "Google Inc. (Noto Emoji); collected by Cal Henderson"),
    "twemoji": (TWEMOJI, "CC-BY-4.0", "Twitter, Inc. and contributors (Twemoji); collected by Cal Henderson"),
    "fashion": (FASHION, "MIT", "Zalando SE"),
}


def content(name: str, sources: Path) -> dict:
    """Pictures, labels, split, classes and keys of a pack."""
    if name == "clipart":
        pack = clipart.build(unpack(OPENCLIPART, sources) / clipart.ROOT)
    elif name == "fashion":
        pack = fashion.build(unpack(FASHION, sources) / fashion.ROOT)
    else:  # both styles are read for either pack: they keep the same emoji
        pack = both_styles(sources)[name]
    if "objects" in pack:
        objects = pack.pop("objects")
        pack["split"] = stratified_split(list(pack["labels"]), objects)
    return pack


@cache
def both_styles(sources: Path) -> dict[str, dict]:
    """Content of `noto` and `twemoji`."""
    packages = {"noto": NOTO, "twemoji": TWEMOJI}
    return emoji.build({name: unpack(package, sources) / "package" for name, package in packages.items()})


def provenance(name: str, pack: dict, sha256: str) -> dict:
    """Say where a pack comes from and what it holds."""
    source, licence, authors = PACKS[name]
    placed = zip(pack["labels"], pack["split"], strict=True)
    counts = Counter((pack["classes"][label], SPLITS[part]) for label, part in placed if label >= 0)
    return {
        "pack": f"{name}.npz",
        "sha256": sha256,
        "images": len(pack["keys"]),
        "images_of_no_class": sum(int(label) < 0 for label in pack["labels"]),
        "licence": licence,
        "licence_text": f"LICENSE-{name}.txt",
        "authors": authors,
        "source": {
            "package": source.name,
            "kind": source.kind,
            "version": source.version,
            "file": source.file,
            "sha256": source.sha256,
            "homepage": source.homepage,
        },
        "script": f"scripts/packs/build.py {name}",
        "per_class": {c: {split: counts[c, split] for split in SPLITS} for c in pack["classes"]},
    }


def main(arguments=None):
    """Build the packs that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("packs", nargs="*", help=f"which of {', '.join(PACKS)}; default: all")
    cache = Path("~/.cache/mgmlib/sources").expanduser()
    parser.add_argument("--sources", type=Path, default=cache, help="where the source packages are kept")
    parser.add_argument("--into", type=Path, default=FOLDER, help="where the packs go")
    options = parser.parse_args(arguments)
    unknown = set(options.packs) - set(PACKS)
    if unknown:
        parser.error(f"no pack named {', '.join(sorted(unknown))}; there are {', '.join(PACKS)}")
    options.into.mkdir(parents=True, exist_ok=True)
    for name in options.packs or PACKS:
        pack = content(name, options.sources.resolve())
        sha256 = write_pack(options.into, name, **pack)
        record = json.dumps(provenance(name, pack, sha256), indent=1) + "\n"
        (options.into / f"{name}.json").write_text(record)
        size = (options.into / f"{name}.npz").stat().st_size
        held = f"{len(pack['keys'])} images, {len(pack['classes'])} classes"
        print(f"{name}: {held}, {size / 1e6:.1f} MB, {sha256}")


if __name__ == "__main__":
    main()
