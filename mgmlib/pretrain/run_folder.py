"""What a run leaves on disk, each file written at once or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path

import torch

from mgmlib.atomic import whole, write_whole
from mgmlib.pretrain.config import Config


class RunFolder:
    """The folder of one run.

    ``config.json``; ``checkpoint.pt`` while it runs; ``snapshots/STEP.safetensors``; and when it is done
    ``weights.safetensors`` (the backbone, float16), ``log.csv`` and ``result.json``.
    """

    def __init__(self, path, config):
        self.path, self.config = Path(path), config
        known = self.path / "config.json"
        if known.is_file():
            other = Config.from_json(known.read_text())
            if other != config:
                raise ValueError(f"folder={str(path)!r} holds another run: {_differences(other, config)}")
        else:
            write_whole(self.path / "config.json", config.to_json())

    @property
    def done(self):
        """Whether the run came to its end."""
        return (self.path / "result.json").is_file()

    def save(self, state):
        """Replace the checkpoint."""
        with whole(self.path / "checkpoint.pt") as draft:
            torch.save(state, draft)

    def load(self, device):
        """The checkpoint, or None."""
        path = self.path / "checkpoint.pt"
        return torch.load(path, map_location=device, weights_only=True) if path.is_file() else None

    def snapshot(self, backbone, step):
        """Keep the backbone as it is after a step."""
        write_whole(self.path / f"snapshots/{step:06d}.safetensors", half(backbone))

    def finish(self, backbone, log, seconds, steps, device):
        """Weights, log and result; ``device`` is the torch.device that trained."""
        import pandas as pd

        weights = half(backbone)
        write_whole(self.path / "weights.safetensors", weights)
        write_whole(
            self.path / "log.csv", pd.DataFrame(log).to_csv(index=False, float_format="%.6g").encode()
        )
        result = {
            "config": json.loads(self.config.to_json()),
            "config_digest": self.config.digest,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            "seconds": round(seconds, 1),
            "steps": steps,
            "torch": torch.__version__,
            "device": device.type,
            "machine": _machine(device),
        }
        write_whole(self.path / "result.json", json.dumps(result, indent=1).encode())


def _machine(device):
    """What trained, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"


def half(backbone):
    """A backbone's weights as the bytes of a safetensors file; floats in float16."""
    from safetensors.torch import save

    state = backbone.state_dict()
    return save({k: (v.half() if v.is_floating_point() else v).cpu().contiguous() for k, v in state.items()})


def _differences(a, b):
    ours, theirs = (json.loads(c.to_json()) for c in (a, b))
    return ", ".join(f"{k}={ours[k]!r} there, {theirs[k]!r} asked for" for k in ours if ours[k] != theirs[k])
