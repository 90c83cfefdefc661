"""Weights: read from a file, strictly and without running code; or drawn from a seed."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch

_WRAPPERS = ("state_dict", "model")  # keys under which training scripts commonly keep the weights


@contextlib.contextmanager
def seeded(seed):
    """Draw initial weights from a seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def read_weights(path):
    """State dict of a safetensors or torch file (``weights_only=True``: nothing in the file is run)."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights={str(path)!r}: no such file; expected 'pretrained', 'random' or a path"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"weights={str(path)!r}: not a readable safetensors or torch weights file: {error}"
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(
            f"weights={str(path)!r}: expected a dict of tensors, or one under {' or '.join(_WRAPPERS)}"
        )
    return state


def load_strict(net, state, source, drop=()):
    """Load a state dict; all keys and shapes must agree, save keys under the prefixes in ``drop``."""
    own = net.state_dict()
    extra = [k for k in state if k not in own]
    unexpected = [k for k in extra if not any(k == d or k.startswith(f"{d}.") for d in drop)]
    missing = [k for k in own if k not in state]
    misshapen = [
        f"{k} {tuple(state[k].shape)} for {tuple(v.shape)}"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if missing or unexpected or misshapen:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        told = "; ".join(f"{len(keys)} {what}: {_few(keys)}" for what, keys in parts if keys)
        raise ValueError(f"weights={str(source)!r} do not fit {type(net).__name__}: {told}")
    net.load_state_dict({k: state[k] for k in own})


def _few(keys, n=6):
    return ", ".join(keys[:n]) + (f", and {len(keys) - n} more" if len(keys) > n else "")
