"""Everything that decides a run's weights, as one value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace


@dataclass(frozen=True)
class Config:
    """One training run. The same configuration on the same machine gives the same weights, bit for bit.

    Parameters
    ----------
    method : str
        A name of `mgmlib.pretrain.METHODS`.
    seed : int
        Of the initial weights, the order of the images and the views.
    backbone : str
        "pocket-resnet", "pocket-vit", or any architecture of timm.
    size : int
        Training resolution in pixels.
    n_views : int
        Budget: training views, counted by area. A view of half the side counts a quarter.
    batch : int
        Images per step, over all processes.
    optimizer : {"sgd", "adamw"}
        Momentum 0.9 (Nesterov), or AdamW's defaults.
    lr, weight_decay : float
        Learning rate after the warm-up, which then falls to 0 on a cosine; no decay of biases and norms.
    warmup : float
        Fraction of the steps in which the learning rate rises linearly.
    clip : float
        Largest norm of the gradient; 0 for none.
    mean, std : three floats
        Normalisation of the input, in units of [0, 1].
    precision : {"bf16", "fp32"}
        Of the forward pass; weights, losses and optimiser are float32.
    threads : int
        Of torch on a CPU: sums depend on it in their last bits.
    options : dict
        Keywords of the method's class.
    """

    method: str
    seed: int = 0
    backbone: str = "pocket-resnet"
    size: int = 32
    n_views: int = 2_400_000
    batch: int = 256
    optimizer: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 0.0
    mean: tuple[float, float, float] = (0.4914, 0.4822, 0.4465)
    std: tuple[float, float, float] = (0.2470, 0.2435, 0.2616)
    precision: str = "bf16"
    threads: int = 1
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        choices = {"optimizer": ("sgd", "adamw"), "precision": ("bf16", "fp32")}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(known)}")
        for name in ("size", "n_views", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1")
        if self.batch < 2:
            raise ValueError(f"batch={self.batch}: expected at least 2, batch normalisation needs them")
        if not (self.lr > 0 and 0 <= self.warmup < 1):
            raise ValueError(f"lr={self.lr}, warmup={self.warmup}: expected lr > 0 and 0 <= warmup < 1")
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "options", json.loads(json.dumps(self.options)))  # tuples read back as lists

    def to_json(self):
        """Text that `from_json` reads back."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text):
        """The configuration that `to_json` wrote."""
        return cls(**json.loads(text))

    def with_seed(self, seed):
        """The same run from another seed."""
        return replace(self, seed=seed)

    @property
    def digest(self):
        """sha256 hex of all of it."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
