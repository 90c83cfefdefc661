"""Weights: read from a file, strictly and without running code; or drawn from a seed."""

from __future__ import annotations

import contextlib

import torch

from mgmlib.models.containers import kind_of, read_safetensors, read_torch

_WRAPPERS = ("state_dict", "model")  # keys under which training scripts commonly keep the weights


@contextlib.contextmanager
def seeded(seed, device="cpu"):
    """Draw from a seed on the CPU and on ``device``; the global generators are left as they were."""
    device = torch.device(device)
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def read_weights(path):
    """State dict of a safetensors or torch file (``weights_only=True``: nothing in the file is run)."""
    kind = kind_of(path)
    if kind == "bundle":
        raise ValueError(f"weights={str(path)!r}: a TensorFlow checkpoint, which this model does not read")
    state = read_safetensors(path) if kind == "safetensors" else read_torch(path)
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
