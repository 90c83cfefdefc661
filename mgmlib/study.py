"""The study at full size: the geometry of every published model on a folder of images, one table a model.

A model whose table is there is not measured again: its first line says, as JSON, what it was made from.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mgmlib.atomic import write_whole
from mgmlib.augment import STUDY_SETTINGS
from mgmlib.compare import SMALLEST_CLASS, profile
from mgmlib.models import PUBLISHED, STUDIED, load_model
from mgmlib.models.synthetic import MARK

CODE_VERSION = 1  # part of what a table is made from: raise it when its numbers change


@dataclass(frozen=True)
class Study:
    """What is measured.

    Parameters
    ----------
    models : names of `mgmlib.models.table`.
    n_classes, n_per_class : of the semantic manifolds, drawn with ``seed``.
    n_images, n_views : of the augmentation manifolds, for each of ``settings``; images drawn with ``seed``.
    k, precision, input_size, seed : as in `mgmlib.profile` and `mgmlib.load_model`.
    """

    models: tuple[str, ...] = STUDIED
    n_classes: int = 100
    n_per_class: int = 50
    n_images: int = 200
    n_views: int = 50
    settings: tuple[str, ...] = STUDY_SETTINGS
    k: int = 50
    precision: str = "fp32"
    input_size: int = 224
    seed: int = 0

    @classmethod
    def read(cls, path):
        """A study from a YAML file; names that it does not know are an error."""
        import yaml

        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"{path}: unknown {', '.join(unknown)}; known: {known}")
        if values.get("models", "all") == "all":
            values["models"] = STUDIED
        study = cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
        strangers = [name for name in study.models if name not in PUBLISHED]
        if strangers:
            raise ValueError(f"{path}: models: unknown {', '.join(strangers)}; see mgmlib.models.table()")
        return study

    @property
    def n_forward(self):
        """Images that pass through each model."""
        return self.n_classes * self.n_per_class + len(self.settings) * self.n_images * self.n_views

    def hours(self, images_per_second):
        """Hours of the whole study: models × (classes × images + settings × images × views) / rate / 3600."""
        return len(self.models) * self.n_forward / images_per_second / 3600

    def select(self, images):
        """The images of the semantic manifolds, and those whose views are taken."""
        rng = np.random.default_rng(self.seed)
        sizes = np.bincount(images.labels, minlength=len(images.classes))
        large = np.flatnonzero(sizes >= SMALLEST_CLASS)
        if not len(large):
            raise ValueError(
                f"images: no class of {images.name!r} has {SMALLEST_CLASS} images; expected a folder with "
                f"one sub-folder a class"
            )
        chosen = rng.permutation(large)[: self.n_classes]
        semantic = images.subset(np.isin(images.labels, chosen)).per_class(self.n_per_class, self.seed)
        return semantic, images.subset(np.sort(rng.permutation(len(images))[: self.n_images]))


def run(study, images, folder, weights=None, *, say=print, **options):
    """Measure every model whose table is not there yet.

    Parameters
    ----------
    study : Study
    images : Images
    folder : path
        Where the tables go, ``MODEL.csv`` each.
    weights : path, optional
        A folder with a checkpoint for each model at ``MODEL/FILE``; default: fetched where published.
    say : called with one line a model.
    options : further arguments of `mgmlib.embed`, such as ``device``, ``workers``, ``batch_size``.

    Returns
    -------
    dict of str to str: the models that could not be measured, and why.
    """
    paths = {name: _weights(weights, name) for name in study.models}
    lacking = [str(path) for path in paths.values() if path is not None and not path.exists()]
    if lacking:
        raise FileNotFoundError(f"weights={str(weights)!r}: expected, and not there: {', '.join(lacking)}")
    semantic, viewed = study.select(images)
    failed = {}
    for number, (name, path) in enumerate(paths.items(), 1):
        started = time.perf_counter()
        try:
            done = _one(study, name, path, semantic, viewed, Path(folder), options)
        except (OSError, RuntimeError, ValueError) as error:
            failed[name] = f"{type(error).__name__}: {error}"
            say(f"{number}/{len(paths)} {name}: {failed[name]}")
        else:
            state = f"{time.perf_counter() - started:.0f} s" if done else "is there already"
            say(f"{number}/{len(paths)} {name}: {state}")
    return failed


def results(folder):
    """The tables of a study as one.

    Parameters
    ----------
    folder : path of the tables.

    Returns
    -------
    DataFrame: weights ("published" or "synthetic"), model, paradigm and the columns of `mgmlib.profile`; no
        rows where there is no table. ``attrs["provenance"]``: model to what its table was made from.
    """
    import pandas as pd

    tables, provenance = [], {}
    for path in sorted(Path(folder).glob("*.csv"), key=lambda p: _rank(p.stem)):
        head = path.open(encoding="utf-8").readline()
        if head.startswith("# {"):
            provenance[path.stem] = json.loads(head[2:])
            tables.append(pd.read_csv(path, comment="#"))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["weights", "model"])
    table.attrs["provenance"] = provenance
    return table


def _rank(name):
    """Position of a model in the catalogue."""
    return list(PUBLISHED).index(name) if name in PUBLISHED else len(PUBLISHED)


def _weights(folder, name):
    if folder is None or PUBLISHED[name].layout == "position":  # that one's weights come with a package
        return None
    return Path(folder) / name / PUBLISHED[name].file


def _one(study, name, path, semantic, viewed, folder, options):
    """Measure a model and write its table; False where it is there."""
    synthetic = path is not None and (path.parents[1] / MARK).is_file()
    encoder = load_model(name, weights=path or "pretrained", input_size=study.input_size)
    made_from = {
        "model": name,
        "weights": "synthetic" if synthetic else "published",
        "weights_sha256": encoder.meta.get("sha256"),
        "published_hash": encoder.meta.get("published_hash"),
        "encoder_digest": encoder.digest,
        "images": semantic.name,
        "images_digest": _both(semantic, viewed),
        "n_semantic": len(semantic),
        **{key: value for key, value in asdict(study).items() if key != "models"},
        "n_images": len(viewed),
        "code": CODE_VERSION,
    }
    target = folder / f"{name}.csv"
    if _made_from(target) == json.loads(json.dumps(made_from)):
        return False
    table = profile(
        encoder,
        semantic,
        viewed,
        settings=study.settings,
        n_views=study.n_views,
        k=study.k,
        seed=study.seed,
        precision=study.precision,
        **options,
    )
    columns = {"weights": made_from["weights"], "model": name, "paradigm": PUBLISHED[name].paradigm}
    for position, (column, value) in enumerate(columns.items()):
        table.insert(position, column, value)
    rows = table.drop(columns="encoder").to_csv(index=False, float_format="%.6g", lineterminator="\n")
    text = f"# {json.dumps(made_from)}\n{rows}"
    write_whole(target, text)
    return True


def _both(semantic, viewed):
    """One digest of the images of both kinds of manifold."""
    return hashlib.sha256(f"{semantic.digest} {viewed.digest}".encode()).hexdigest()


def _made_from(target):
    if not target.is_file():
        return None
    with target.open(encoding="utf-8") as file:
        head = file.readline()
    return json.loads(head[2:]) if head.startswith("# {") else None
