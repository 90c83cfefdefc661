"""Synthetic checkpoints: random networks in the very formats in which the published ones lie.

They prove the loaders without a network, and let a whole run be rehearsed before the real files are fetched.
What is measured on them says nothing of any model.
"""

from mgmlib.models.synthetic.write import MARK, random_weights, write_synthetic

__all__ = ["MARK", "random_weights", "write_synthetic"]
