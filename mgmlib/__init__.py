"""Manifold graph metrics of self-supervised vision models: images → views → embeddings → NNK graph → metrics.

Every public name is imported on first use, so ``import mgmlib`` costs next to nothing beyond Python itself.
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

_HOME = {  # public name -> the module that defines it
    "load_images": "data",
    "Images": "data.images",
    "views": "augment",
    "load_model": "models",
    "Encoder": "models",
    "embed": "embed",
    "Embeddings": "embed",
    "embed_layers": "layerwise",
    "nnk": "graph",
    "NNKGraph": "graph",
    "diameter": "metrics",
    "affinity": "metrics",
    "manifold_metrics": "metrics",
    "point_metrics": "metrics",
    "Calibration": "metrics",
    "profile": "compare",
    "depth_profile": "compare",
    "calibrate": "metrics",
    "alignment": "metrics",
    "uniformity": "metrics",
    "contrastive_limit": "metrics",
    "spectral_contrastive_loss": "metrics",
    "mean_cosine": "metrics",
    "rankme": "metrics",
    "alpha_req": "metrics",
    "nesum": "metrics",
    "stable_rank": "metrics",
    "lidar": "metrics",
    "two_nn": "metrics",
    "levina_bickel": "metrics",
    "cluster_learnability": "metrics",
    "clid": "metrics",
}
_MODULES = ("models",)  # reached as attributes, too: mgm.models.table()
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _MODULES:
        return import_module(f"mgmlib.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'mgmlib' has no attribute {name!r}")
    value = getattr(import_module(f"mgmlib.{_HOME[name]}"), name)
    globals()[name] = value  # the next access skips this function
    return value


def __dir__():
    return sorted([*globals(), *_HOME, *_MODULES])


class _Package(ModuleType):
    """A function may have its module's name: ``mgmlib.embed`` is the function, however its module came in."""

    def __setattr__(self, name, value):
        if name in _HOME and isinstance(value, ModuleType):  # the import system binding a submodule
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
