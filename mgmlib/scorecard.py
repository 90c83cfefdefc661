"""The scorecard: each claim of the paper and of its companion theory, and what the book measured of it."""

from __future__ import annotations

import json
from pathlib import Path

from mgmlib.atomic import write_whole

VERDICTS = ("holds", "holds in part", "does not hold", "not testable here")

GEOMETRY = "cosentino2022geometry"
ALIGNMENT = "wang2020understanding"
SPECTRAL = "haochen2021provable"

# Key -> (statement, source). A claim that no notebook has tested yet is open.
CLAIMS = {
    "groups": ("The geometry of self-supervised models falls into three main groups.", GEOMETRY),
    "paradigm": (
        "These groups are not entirely aligned with the paradigm that trained the models.",
        GEOMETRY,
    ),
    "any-layer": ("The metrics apply at any layer of a network.", GEOMETRY),
    "any-dimension": ("The metrics compare representations of different dimension.", GEOMETRY),
    "collapse": ("At initialisation ResNets are biased towards a collapsed representation.", GEOMETRY),
    "no-collapse": ("At initialisation vision transformers are not collapsed.", GEOMETRY),
    "attraction": (
        "ViTs and ResNets therefore differ in how representations attract and repel each other in training.",
        GEOMETRY,
    ),
    "transfer": ("The metrics indicate how well a model transfers, for most downstream tasks.", GEOMETRY),
    "imagenet-accuracy": (
        "ImageNet accuracy alone does not indicate transfer to tasks far from ImageNet.",
        GEOMETRY,
    ),
    "invariance": ("Invariance to an augmentation helps some tasks and harms others.", GEOMETRY),
    "limit": (
        "With ever more negatives the contrastive loss tends to alignment plus uniformity.",
        ALIGNMENT,
    ),
    "direct": ("Optimising alignment and uniformity directly can give better features.", ALIGNMENT),
    "clustering": (
        "The spectral contrastive loss is spectral clustering of the augmentation graph.",
        SPECTRAL,
    ),
    "spectral-probe": (
        "Features of the spectral loss match those of SimCLR and SimSiam under a linear probe.",
        SPECTRAL,
    ),
    "components": (
        "If the augmentation graph falls into disconnected components, its features separate them linearly.",
        SPECTRAL,
    ),
    "negatives": ("More negatives are better in theory; in practice the gain saturates.", ALIGNMENT),
}


def write_row(folder, key, *, test, result, verdict, figure, scale):
    """Write what a notebook found of one claim to ``folder/KEY.json``.

    Parameters
    ----------
    folder : path
    key : str
        Of `CLAIMS`.
    test : str
        What was tested, with the statistic and the null it was held against.
    result : str
        The numbers, with their intervals, rounded as they are to be read.
    verdict : str
        One of `VERDICTS`.
    figure : str
        Label of the figure that shows it, such as "fig-initial-depth".
    scale : str
        What it was measured on, such as "pocket zoo, 9 methods, seed 0".

    Raises
    ------
    ValueError
        If the claim or the verdict is not one of those known, or a text is empty.
    """
    if key not in CLAIMS:
        raise ValueError(f"key={key!r}: expected one of {', '.join(CLAIMS)}")
    if verdict not in VERDICTS:
        raise ValueError(f"verdict={verdict!r}: expected one of {', '.join(VERDICTS)}")
    row = {"test": test, "result": result, "verdict": verdict, "figure": figure, "scale": scale}
    empty = [name for name, text in row.items() if not text.strip()]
    if empty:
        raise ValueError(f"{', '.join(empty)}: expected a text, got an empty one")
    write_whole(Path(folder) / f"{key}.json", json.dumps(row, indent=1, ensure_ascii=False) + "\n")


def read_rows(folder):
    """All claims in their order, with what the notebooks found.

    Parameters
    ----------
    folder : path
        Where `write_row` wrote.

    Returns
    -------
    list of dict
        key, statement, source, and the fields of `write_row`; verdict "open" and empty texts where there
        is no row.

    Raises
    ------
    ValueError
        If a file is not of a claim.
    """
    folder = Path(folder)
    strangers = sorted(path.name for path in folder.glob("*.json") if path.stem not in CLAIMS)
    if strangers:
        raise ValueError(f"{folder}: {', '.join(strangers)}: no such claim; there are {', '.join(CLAIMS)}")
    nothing = {"test": "", "result": "", "verdict": "open", "figure": "", "scale": ""}
    rows = []
    for key, (statement, source) in CLAIMS.items():
        path = folder / f"{key}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else nothing
        rows.append({"key": key, "statement": statement, "source": source, **found})
    return rows
