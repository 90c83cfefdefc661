"""Every kind of image file is decoded right, or refused with its name and the reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import mgmlib as mgm
from mgmlib.data import ImageError
from mgmlib.data.decode import decode, read_file

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def png(picture, **options):
    return encoded(picture, "PNG", **options)


def encoded(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def quadrants(mode="RGB"):
    """Red, green / blue, white; 16 x 12 px."""
    x = np.zeros((12, 16, 3), np.uint8)
    x[:6, :8], x[:6, 8:], x[6:, :8], x[6:, 8:] = RED, (0, 255, 0), BLUE, WHITE
    return Image.fromarray(x).convert(mode)


def expected(mode="RGB"):
    return torch.from_numpy(np.asarray(quadrants(mode).convert("RGB")).transpose(2, 0, 1).copy())


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM", "TGA"])
def test_lossless_formats_keep_every_pixel(kind):
    x = decode(encoded(quadrants(), kind), "x")
    assert x.dtype == torch.uint8
    assert torch.equal(x, expected())


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours(mode):
    assert torch.equal(decode(png(quadrants(mode)), "x"), expected(mode))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_near(kind):
    x = decode(encoded(quadrants(), kind, quality=95), "x").float()
    assert (x - expected().float()).abs().mean() < 12


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_not_inverted(kind):
    x = decode(encoded(Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK"), kind), "x").float()
    assert x.mean(dim=(1, 2)).sub(torch.tensor([250.0, 10, 10])).abs().max() < 6


def test_alpha_is_composited_over_the_background():
    rgba = Image.new("RGBA", (2, 1))
    rgba.putdata([(255, 0, 0, 255), (255, 0, 0, 51)])  # opaque, one fifth
    x = decode(png(rgba), "x", background=(0, 100, 200))
    assert x[:, 0, 0].tolist() == [255, 0, 0]
    assert x[:, 0, 1].tolist() == [51, 80, 160]


def test_grey_with_alpha():
    la = Image.new("LA", (2, 1))
    la.putdata([(10, 255), (10, 0)])
    assert decode(png(la), "x", background=(9, 8, 7))[:, 0].T.tolist() == [[10, 10, 10], [9, 8, 7]]


def test_palette_with_transparency():
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putdata([0, 1])
    x = decode(png(picture, transparency=1), "x", background=(1, 2, 3))
    assert x[:, 0].T.tolist() == [[255, 0, 0], [1, 2, 3]]


def test_transparent_colour_of_an_rgb_png():
    picture = Image.new("RGB", (2, 1))
    picture.putdata([RED, BLUE])
    x = decode(png(picture, transparency=BLUE), "x", background=(1, 2, 3))
    assert x[:, 0].T.tolist() == [[255, 0, 0], [1, 2, 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    x = decode(encoded(Image.fromarray(values), kind), "x")
    assert x[:, 0].tolist() == [[0, 1, 128, 255]] * 3


def test_16_bit_pgm():
    content = b"P5 2 1 65535\n" + struct.pack(">HH", 65535, 32896)
    assert decode(content, "x")[0, 0].tolist() == [255, 128]


def test_16_bit_rgb_png():
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 65535, 32896, 257))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert decode(content, "x")[:, 0, 0].tolist() == [255, 128, 1]


def test_float_tiff_in_the_unit_interval():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"), "x")[0, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("values", [np.array([[0.0, 7.0]], np.float32), np.array([[0, 70000]], np.int32)])
def test_grey_of_unknown_white_is_refused(values):
    with pytest.raises(ImageError, match=r"far\.tif.*(expected 0 to 1|white)"):
        decode(encoded(Image.fromarray(values), "TIFF"), "far.tif")


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    x = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **lossless), "x")
    assert x[:, 4, 4].tolist() == list(RED)


def test_exif_orientation_turns_the_picture_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    x = decode(png(quadrants(), exif=exif), "x")
    assert torch.equal(x, expected().rot90(-1, dims=(1, 2)))


def test_broken_exif_leaves_the_picture_as_stored():
    content = encoded(quadrants(), "JPEG", exif=b"Exif\0\0broken")
    assert decode(content, "x").shape == (3, 12, 16)


def test_one_pixel():
    assert decode(png(Image.new("RGB", (1, 1), RED)), "x").flatten().tolist() == list(RED)


def test_long_and_thin():
    assert decode(png(Image.new("L", (5000, 1))), "x").shape == (3, 1, 5000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_truncated_file_is_refused_never_black(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    assert decode(content, "x").shape == (3, 64, 64)
    with pytest.raises(ImageError, match="cut.img"):
        decode(content[: len(content) // 2], "cut.img")


def test_truncated_file_is_refused_where_pillow_was_told_to_fill_in(monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(quadrants(), "JPEG")
    with pytest.raises(ImageError, match="LOAD_TRUNCATED_IMAGES"):
        decode(content[:-40], "cut.jpg")


@pytest.mark.parametrize("content", [b"just a note", b"<!DOCTYPE html><title>404</title>", b"\0" * 64])
def test_what_is_no_image_is_refused_with_its_beginning(content):
    with pytest.raises(ImageError) as caught:
        decode(content, "page.jpg")
    assert "page.jpg: not an image" in str(caught.value)
    assert repr(content[:16]) in str(caught.value)


def test_flipped_bits_in_a_png_are_refused():
    content = bytearray(png(quadrants()))
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        decode(bytes(content), "bits.png")


def test_huge_picture_is_refused_before_it_is_unpacked():
    header = struct.pack(">IIBBBBB", 9000, 9000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"bomb\.png: 9000 x 9000 pixels are more than max_pixels=1000000"):
        decode(content, "bomb.png", max_pixels=1_000_000)


def test_bomb_beyond_pillows_own_limit_is_refused():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match=r"bomb\.png.*max_pixels"):
        decode(content, "bomb.png")


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, reason in {
        "empty.jpg": "empty file",
        "folder.png": "directory",
        "loop.png": "cannot be read",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}: .*{reason}"):
            read_file(tmp_path / name)
    (tmp_path / "locked.jpg").write_bytes(b"x")

    def refuse(path):  # chmod would not stop the superuser
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ImageError, match=r"locked\.jpg: cannot be read: Permission denied"):
        read_file(tmp_path / "locked.jpg")


def test_an_error_names_the_file_also_after_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(ImageError("a/b.png", "empty file")))
    assert str(error) == "a/b.png: empty file"


@pytest.mark.parametrize("background", [(0, 0), (0, 0, 256), (0.5, 0, 0)])
def test_background_is_checked(background, tmp_path):
    with pytest.raises(ValueError, match="background"):
        mgm.load_images(tmp_path, background=background)
