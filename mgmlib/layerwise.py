"""Embeddings at many layers from one forward pass."""

from __future__ import annotations

import torch

from mgmlib.embed import ready
from mgmlib.models.layers import find_layer, pooled


def embed_layers(encoder, images, layers, *, pool="auto", batch_size=16, device=None):
    """Embeddings of images at several layers of an encoder, in one pass, not cached.

    Parameters
    ----------
    encoder : Encoder
        Run in eval mode and handed back as it came.
    images : torch.Tensor (M, 3, S, S) float in [0, 1]
        Such as `mgmlib.views` gives them.
    layers : sequence of str or None
        Names of `mgmlib.models.layers` or of any submodule; None is the output.
    pool : {"auto", "mean", "token", "flatten"}
        How the output of a layer becomes one vector, see `mgmlib.models.layers.pooled`.
    batch_size : int
    device : str or torch.device, optional
        Default ``"cuda"`` where there is one, else ``"cpu"``.

    Returns
    -------
    dict
        Layer to (M, d) float32 array, in the order of ``layers``; the first call of a layer counts.

    Raises
    ------
    ValueError
        If there is no such layer, or a forward pass does not come by it.
    """
    device = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    met, found = {}, {layer: [] for layer in layers}

    def note(layer):
        def hook(_module, _inputs, output):
            if layer not in met:  # pooled at once: what comes next may work in place
                met[layer] = pooled(encoder.net, output, pool).clone()

        return hook

    named = [layer for layer in layers if layer is not None]
    hooks = [find_layer(encoder.net, layer).register_forward_hook(note(layer)) for layer in named]
    try:
        with ready(encoder, device, "fp32"):
            met.clear()  # getting ready may have run an image
            for batch in images.split(batch_size):
                met[None] = encoder(batch.to(device))
                for layer, rows in found.items():
                    if layer not in met:
                        raise ValueError(f"layers: a forward pass of {encoder.name} does not reach {layer!r}")
                    rows.append(met[layer].float().cpu())
                met.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return {layer: torch.cat(rows).numpy() for layer, rows in found.items()}
