"""The methods of the zoo: one class each, by their published names."""

from importlib import import_module

METHODS = {  # name -> (module, class)
    "supervised": ("supervised", "Supervised"),
    "simclr-v1": ("simclr", "SimCLR"),
    "simclr-v2": ("simclr", "SimCLRv2"),
    "moco-v1": ("moco", "MoCo"),
    "moco-v2": ("moco", "MoCov2"),
    "byol": ("byol", "BYOL"),
    "insdis": ("insdis", "InsDis"),
    "pirl": ("pirl", "PIRL"),
    "pcl-v1": ("pcl", "PCL"),
    "pcl-v2": ("pcl", "PCLv2"),
    "infomin": ("infomin", "InfoMin"),
    "swav": ("swav", "SwAV"),
    "sela-v2": ("sela", "SeLav2"),
    "deepcluster-v2": ("deepcluster", "DeepClusterv2"),
    "simsiam": ("simsiam", "SimSiam"),
    "barlow-twins": ("barlow", "BarlowTwins"),
    "vicreg": ("vicreg", "VICReg"),
    "dino": ("dino", "DINO"),
    "moco-v3": ("mocov3", "MoCov3"),
    "spectral": ("spectral", "Spectral"),
    "align-uniform": ("align_uniform", "AlignUniform"),
    "sigmoid": ("sigmoid", "Sigmoid"),
}


def method_class(name):
    """The class of the method called ``name``."""
    if name not in METHODS:
        raise ValueError(f"method={name!r}: expected one of {', '.join(METHODS)}")
    module, kind = METHODS[name]
    return getattr(import_module(f"mgmlib.pretrain.methods.{module}"), kind)
