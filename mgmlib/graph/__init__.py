"""Embeddings → neighbours → NNK weights."""

from mgmlib.graph.nnk import NNKGraph, nnk

__all__ = ["NNKGraph", "nnk"]
