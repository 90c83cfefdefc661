"""The pocket zoo: which runs there are, with the settings that tuning chose."""

from __future__ import annotations

from dataclasses import replace

from mgmlib.pretrain.config import Config
from mgmlib.pretrain.methods import method_class

# The methods of the paper's fourteen models, in the order of its tables.
FOURTEEN = (
    "insdis",
    "moco-v1",
    "pcl-v1",
    "pirl",
    "pcl-v2",
    "simclr-v1",
    "moco-v2",
    "simclr-v2",
    "sela-v2",
    "infomin",
    "byol",
    "deepcluster-v2",
    "swav",
    "supervised",
)
SEEDS = 3  # of each of the fourteen, and of the ViTs; one of the others

# Untrained networks, as a baseline: name -> backbone.
INITIAL = {"random-resnet": "pocket-resnet", "random-vit": "pocket-vit"}

_VIT = {"backbone": "pocket-vit", "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05, "clip": 1.0}

_OTHERS = ("simsiam", "barlow-twins", "vicreg", "dino", "spectral", "align-uniform", "sigmoid")
_LR = {"lr": 0.3}  # did best for most of those tried at several; `trials` has what was tried
# Name -> what differs from `Config`'s defaults; "method" where the name is not the method's.
ZOO = {name: dict(_LR) for name in (*FOURTEEN, *_OTHERS)} | {
    "dino-vit": {"method": "dino"} | _VIT,
    "moco-v3-vit": {"method": "moco-v3"} | _VIT,
}
# SimCLR's published models take [0, 1] as it is (Table 10 of Ericsson et al.).
for _name in ("simclr-v1", "simclr-v2"):
    ZOO[_name] |= {"mean": (0, 0, 0), "std": (1, 1, 1)}
# What did best for one method, on held-out images.
_TUNED = {
    "simclr-v1": {"lr": 0.1},
    "simclr-v2": {"lr": 0.1},  # as its predecessor
    "byol": {"options": {"momentum": 0.97}},
    "swav": {"options": {"epsilon": 0.03}},
    "infomin": {"options": {"tau": 0.07}},
    "dino": {"options": {"norm": True, "teacher_tau": (0.02, 0.02)}},  # either alone does little
    "dino-vit": {"options": {"teacher_tau": (0.02, 0.02)}},
    "sigmoid": {"lr": 0.03},
}
for _name, _chosen in _TUNED.items():
    ZOO[_name] |= _chosen


# Of the fourteen, those of `mgmlib.models.table`.
PARADIGMS = {
    "contrastive": (
        *("insdis", "moco-v1", "pcl-v1", "pirl", "pcl-v2", "simclr-v1", "moco-v2", "simclr-v2", "infomin"),
        *("spectral", "align-uniform", "sigmoid", "moco-v3-vit"),
    ),
    "clustering": ("sela-v2", "deepcluster-v2", "swav"),
    "distillation": ("byol", "simsiam", "dino", "dino-vit"),
    "redundancy reduction": ("barlow-twins", "vicreg"),
    "supervised": ("supervised",),
    "untrained": tuple(INITIAL),
}


def paradigm(name):
    """How a run of the zoo was trained, in the words of `mgmlib.models.table`."""
    return next(kind for kind, names in PARADIGMS.items() if name in names)


def recipe(name):
    """Which steps the training views of a method take beside crop and flip: name of the step -> bool."""
    shown = method_class(zoo_config(name).method).views
    return {
        "multi-crop": any(v.zoom != 1 for v in shown),
        "color-jitter": any(v.jitter_p for v in shown),
        "grayscale": any(v.gray for v in shown),
        "blur": any(v.blur for v in shown),
        "solarize": any(v.solarize for v in shown),
        "PCA colour": any(v.pca for v in shown),
        "RandAugment": any(v.randaugment for v in shown),
        "jigsaw": any(v.jigsaw for v in shown),
    }


def zoo_config(name, seed=0):
    """The configuration of one run of the zoo."""
    if name not in ZOO:
        raise ValueError(f"name={name!r}: the pocket zoo has {', '.join(ZOO)}")
    return Config(**{"method": name, "seed": seed} | ZOO[name])


def backbone_of(name):
    """The architecture of a run of the zoo or of an untrained network."""
    return INITIAL[name] if name in INITIAL else zoo_config(name).backbone


def runs():
    """Name and seed of every run, first seeds first."""
    many = {*FOURTEEN, "dino-vit", "moco-v3-vit"}
    return [(name, seed) for seed in range(SEEDS) for name in ZOO if seed == 0 or name in many]


def varied(config, **changes):
    """A configuration with fields changed, or options of the method where `Config` has no such field."""
    fields = {key: value for key, value in changes.items() if hasattr(config, key)}
    options = {key: value for key, value in changes.items() if key not in fields}
    return replace(config, **fields, options=config.options | options)
