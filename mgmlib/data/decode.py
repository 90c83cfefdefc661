"""Image file → RGB pixels, or an error that names the file and the reason."""

import io
import os
import stat
from functools import cache
from pathlib import Path

import numpy as np
import torch

MAX_PIXELS = 89_478_485  # Pillow's own threshold for a possible decompression bomb: a 268 MB picture
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "AVIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".jp2", ".avif"),
)
ORIENTATION = 0x0112  # EXIF tag


class ImageError(ValueError):
    """An image file that cannot be decoded; the message names the file and the reason."""

    def __init__(self, file, reason):
        super().__init__(str(file), reason)
        self.file, self.reason = str(file), reason

    def __str__(self):
        return f"{self.file}: {self.reason}"


def read_file(path) -> bytes:
    """Bytes of a regular file that is not empty; `ImageError` otherwise."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(path, "is a directory, expected an image file")
        if not stat.S_ISREG(mode):
            raise ImageError(path, "is not a regular file")
        content = Path(path).read_bytes()
    except OSError as error:
        raise ImageError(path, f"cannot be read: {error.strerror or error}") from error
    if not content:
        raise ImageError(path, "empty file (0 bytes)")
    return content


def decode(content: bytes, file, background=(255, 255, 255), max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """Decode an image file's bytes to RGB.

    The first frame of an animation; upright by its EXIF orientation; alpha, of whatever kind, composited over
    `background`; 16-bit grey scaled by 65535; CMYK by Pillow's formula. Colour profiles are not applied.

    Parameters
    ----------
    content : bytes
    file : str or Path
        Named in errors.
    background : (r, g, b) in 0..255
    max_pixels : int
        Larger pictures are refused before they are unpacked.

    Returns
    -------
    uint8 tensor (3, H, W), H and W at least 1

    Raises
    ------
    ImageError
    """
    from PIL import Image, ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:  # Pillow would fill what is missing with grey or black
        raise ImageError(
            file, "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: damage would go unseen; set it to False"
        )
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise ImageError(file, f"{width} x {height} pixels are more than max_pixels={max_pixels}")
            picture.load()
            return to_rgb(_upright(picture), background)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(
            file, f"{error} (max_pixels={max_pixels}; Pillow's own limit comes first)"
        ) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(file, f"not an image of a known format, it starts with {content[:16]!r}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged input
        raise ImageError(file, f"damaged or unsupported: {type(error).__name__}: {error}") from error


def to_rgb(picture, background=(255, 255, 255)) -> torch.Tensor:
    """Pillow picture of any mode → uint8 tensor (3, H, W), alpha composited over `background`."""
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = _grey8(picture)
        rgb = np.repeat(grey[..., None], 3, axis=2)
    elif picture.has_transparency_data:
        rgb = composite(np.asarray(picture.convert("RGBA")), background)
    else:
        rgb = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(rgb.transpose(2, 0, 1).copy())


def composite(rgba: np.ndarray, background) -> np.ndarray:
    """(..., 4) uint8 over an opaque (r, g, b) background → (..., 3) uint8, rounded to nearest."""
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = rgba[..., :3] * alpha + np.asarray(background, np.uint32) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


@cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow reads; none that would start another program (EPS)."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _grey8(picture) -> np.ndarray:
    """Grey of more than 8 bits → uint8, where the value of white is known."""
    values = np.asarray(picture).astype(np.float64)
    white = 65535.0
    if picture.mode == "F":
        white = 1.0
    elif picture.mode == "I" and picture.format == "TIFF":
        raise ValueError("signed or 32-bit integer TIFF: the value of white is not defined")
    if not (values.min() >= 0 and values.max() <= white):
        raise ValueError(f"grey values from {values.min():g} to {values.max():g}, expected 0 to {white:g}")
    return np.rint(values * (255 / white)).astype(np.uint8)


def _upright(picture):
    """Turn as the EXIF orientation says; leave as stored where the EXIF block itself cannot be read."""
    from PIL import ImageOps

    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # the pixels are whole: a broken EXIF block says nothing about them
        return picture
    return picture if orientation == 1 else ImageOps.exif_transpose(picture)
