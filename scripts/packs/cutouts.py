"""Cut-outs with alpha: cropped to the object, brought to one size, told apart by looks."""

import numpy as np
from PIL import Image

SIZE, MARGIN = 64, 2  # px
VISIBLE = 16  # alpha of at least this counts as the object
SMALLEST = 24  # px: an object whose longer side is below this would only be blown up


def cut_out(picture: Image.Image) -> np.ndarray | None:
    """Crop to the alpha box and fit into SIZE x SIZE; None if the object is too small.

    Returns
    -------
    (SIZE, SIZE, 4) uint8, colour 0 where alpha is 0
    """
    rgba = picture.convert("RGBA")
    box = rgba.getchannel("A").point(lambda alpha: 255 * (alpha >= VISIBLE)).getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return None
    premultiplied = rgba.crop(box).convert("RGBa")  # so that no colour bleeds in from where nothing is seen
    scale = (SIZE - 2 * MARGIN) / max(premultiplied.size)
    width, height = (max(1, round(side * scale)) for side in premultiplied.size)
    small = premultiplied.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    canvas = Image.new("RGBa", (SIZE, SIZE))
    canvas.paste(small, ((SIZE - width) // 2, (SIZE - height) // 2))
    return clean(np.asarray(canvas.convert("RGBA")))


def clean(rgba: np.ndarray) -> np.ndarray:
    """Set colour to 0 where nothing is seen, so that equal looks are equal bytes."""
    return np.where(rgba[..., 3:] > 0, rgba, 0).astype(np.uint8)


def alike(pictures: np.ndarray, tolerance: float, channels=(0, 1, 2, 3)) -> list[tuple[int, int]]:
    """List the pairs (i, j), i < j, that differ by at most `tolerance` of what the fuller of the two shows.

    Pictures are compared as means over 16 x 16 cells, colour premultiplied by alpha: the sum of absolute
    differences over the larger of the two sums.

    Parameters
    ----------
    pictures : (N, 64, 64, 4) uint8
    tolerance : float in [0, 1]
    channels : subset of (0, 1, 2, 3)
        (3,) compares outlines.
    """
    x = pictures.astype(np.float32) / 255
    x[..., :3] *= x[..., 3:]
    cells = x[..., list(channels)].reshape(len(x), 16, 4, 16, 4, -1).mean(axis=(2, 4)).reshape(len(x), -1)
    total = cells.sum(axis=1)
    pairs = []
    for j in range(1, len(cells)):
        difference = np.abs(cells[:j] - cells[j]).sum(axis=1)
        close = np.flatnonzero(difference <= tolerance * np.maximum(total[:j], total[j]))
        pairs += [(int(i), j) for i in close]
    return pairs


def first_of_looks(pictures: np.ndarray, tolerance: float) -> np.ndarray:
    """Position of the first picture that looks the same, (N,) int: i itself where none before it does."""
    first = np.arange(len(pictures))
    for i, j in alike(pictures, tolerance):
        first[j] = min(first[j], first[i])
    return first
