"""What the package carries of the zoo's runs: `publish` writes it, the book reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mgmlib.embed import Embeddings
from mgmlib.pretrain.zoo import INITIAL, ZOO, backbone_of

ASSETS = Path(__file__).resolve().parent.parent / "assets" / "zoo"


def records(folder=ASSETS):
    """One row a published run: name, seed, backbone, quality, costs, digests of configuration and weights.

    Parameters
    ----------
    folder : path
        Holds ``runs/NAME-sSEED.json``.

    Returns
    -------
    DataFrame, in the order of `ZOO`, the untrained networks last
    """
    import pandas as pd

    found = [json.loads(path.read_text()) for path in Path(folder).glob("runs/*.json")]
    order = [*ZOO, *INITIAL]
    found.sort(key=lambda run: (order.index(run["name"]), run["seed"]))
    table = pd.DataFrame(found).drop(columns="config", errors="ignore")
    if len(table):
        table.insert(2, "backbone", table["name"].map(backbone_of))
    return table


def trials(folder=ASSETS):
    """One row a tuning run: name, what was tried, budget, quality on held-out images.

    A run that diverged has no quality.
    """
    import pandas as pd

    found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("tuning/*.json"))]
    for run in found:
        run["tried"] = ", ".join(f"{key} {value}" for key, value in run["tried"].items())
    found.sort(key=lambda run: (list(ZOO).index(run["name"]), run["tried"]))
    return pd.DataFrame(found)


def repeated(folder=ASSETS):
    """One row a published run that was trained once more: name, seed, where, and what its probes gave.

    ``linear`` and ``knn`` are of the published run; ``again_linear`` and ``again_knn`` of the other.
    """
    import pandas as pd

    again = [json.loads(path.read_text()) for path in Path(folder).glob("repeated/*.json")]
    if not again:
        return pd.DataFrame(columns=["name", "seed", "machine", "linear", "knn", "again_linear", "again_knn"])
    probes = ["linear", "knn"]
    again = pd.DataFrame(again)[["name", "seed", "machine", "weights_sha256", *probes]]
    again = again.rename(columns={key: f"again_{key}" for key in (*probes, "weights_sha256")})
    published = records(folder)[["name", "seed", "weights_sha256", *probes]]
    return published.merge(again, on=["name", "seed"])  # in the order of the records


def geometry(kind, folder=ASSETS):
    """One of the tables of every published run and untrained network, as one.

    Parameters
    ----------
    kind : {"metrics", "groups", "depth", "training"}
        As `mgmlib.pretrain.publish.publish` writes them.
    folder : path

    Returns
    -------
    DataFrame
        model, seed and the columns of the table; runs in the order of `records`. Empty where there is none.

    Raises
    ------
    FileNotFoundError
        If a run that is recorded has no such table; "training" is of the runs that were followed alone.
    """
    import pandas as pd

    tables, found = [], records(folder)
    for run in found.itertuples():
        path = Path(folder) / kind / f"{run.name}-s{run.seed}.csv"
        if kind == "training" and not path.is_file():
            continue
        table = pd.read_csv(path)
        table.insert(0, "model", run.name)
        table.insert(1, "seed", run.seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["model", "seed"])


def manifolds(run, folder=ASSETS):
    """The committed embeddings of a run.

    Parameters
    ----------
    run : str
        "NAME-s0": seed 0 alone is committed.
    folder : path

    Returns
    -------
    dict of str to Embeddings, float32: "semantic" and each of `mgmlib.augment.STUDY_SETTINGS`
    """
    from safetensors.numpy import load_file

    path = Path(folder) / "embeddings" / f"{run}.safetensors"
    arrays, found = load_file(path), {}
    for name in dict.fromkeys(key.partition(".")[0] for key in arrays):
        labels, groups = (arrays[f"{name}.{part}"].astype(np.int64) for part in ("labels", "groups"))
        found[name] = Embeddings(arrays[f"{name}.z"].astype(np.float32), labels, groups, {"run": run})
    return found


def manifolds_file(found):
    """The bytes that `manifolds` reads: of each manifold NAME.z float16; NAME.labels, NAME.groups int16."""
    from safetensors.numpy import save

    arrays = {}
    for name, z in found.items():
        arrays |= {f"{name}.z": z.z.astype(np.float16)}
        arrays |= {f"{name}.{key}": getattr(z, key).astype(np.int16) for key in ("labels", "groups")}
    return save(arrays)
