"""Encoders by name, any layer of them, with their own preprocessing."""

from mgmlib.models.catalogue import PUBLISHED, STUDIED, table
from mgmlib.models.encoder import Encoder
from mgmlib.models.layers import layers
from mgmlib.models.registry import MODELS, load_model

__all__ = ["MODELS", "PUBLISHED", "STUDIED", "Encoder", "layers", "load_model", "table"]
