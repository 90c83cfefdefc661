"""The packs that the package carries, and the functions that build them, on small made-up sources."""

import gzip
import hashlib
import json
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

import mgmlib as mgm
from mgmlib.data.packs import FOLDER, checksums, open_pack, write_pack

PACKS = ("clipart", "noto", "twemoji", "fashion")


@pytest.fixture(params=PACKS)
def name(request):
    return request.param


@pytest.fixture
def scripts(monkeypatch):
    """The folder of build scripts on the import path."""
    folder = FOLDER.parents[2] / "scripts" / "packs"
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_provenance_agrees_with_the_pack(name):
    record, pack = json.loads((FOLDER / f"{name}.json").read_text()), open_pack(name)
    content = (FOLDER / f"{name}.npz").read_bytes()
    assert (
        hashlib.sha256(content).hexdigest() == record["sha256"] == checksums()[f"{name}.npz"] == pack.sha256
    )
    assert record["images"] == len(pack)
    assert record["images_of_no_class"] == (pack.labels < 0).sum()
    for label, title in enumerate(pack.classes):
        split = pack.split[pack.labels == label]
        assert record["per_class"][title] == {
            "train": int((split == 0).sum()),
            "test": int((split == 1).sum()),
        }
    assert len((FOLDER / record["licence_text"]).read_text()) > 1000
    assert len(record["source"]["sha256"]) == 64


def test_all_packs_together_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 20e6
    assert set(checksums()) == {f"{name}.npz" for name in PACKS}


@pytest.mark.parametrize(
    ("name", "images", "classes", "size"),
    [("clipart", 1200, 28, 64), ("noto", 1400, 41, 64), ("twemoji", 1400, 41, 64), ("fashion", 6000, 10, 28)],
)
def test_counts(name, images, classes, size):
    loaded = mgm.load_images(name)
    assert images <= len(loaded) <= 1.05 * images
    assert len(loaded.classes) == classes
    assert np.bincount(loaded.labels, minlength=classes).min() >= 13
    assert loaded[0].shape == (3, size, size)
    assert loaded[0].dtype == torch.uint8


def test_train_and_test_make_up_the_whole(name):
    whole, train, test = (mgm.load_images(name, split=s) for s in (None, "train", "test"))
    assert sorted([*train.ids, *test.ids]) == whole.ids.tolist()
    assert 0.18 < len(test) / len(whole) < 0.21
    assert set(test.labels) == set(train.labels) == set(range(len(whole.classes)))
    assert len({whole.digest, train.digest, test.digest}) == 3
    assert torch.equal(test[3], open_rgb(name, int(test.ids[3])))


def open_rgb(name, i):
    picture = open_pack(name).picture(i).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
    return torch.from_numpy(flat.transpose(2, 0, 1).copy())


def test_no_two_images_are_equal(name):
    pack = open_pack(name)
    assert len(set(pack.keys)) == len(pack)
    digests = {hashlib.sha256(pack.picture(i).tobytes()).digest() for i in range(len(pack))}
    assert len(digests) == len(pack)


def test_both_emoji_styles_have_the_same_emoji_labels_and_split():
    noto, twemoji = open_pack("noto"), open_pack("twemoji")
    assert noto.keys == twemoji.keys
    assert noto.classes == twemoji.classes
    assert (noto.labels == twemoji.labels).all()
    assert (noto.split == twemoji.split).all()
    assert not torch.equal(mgm.load_images("noto")[0], mgm.load_images("twemoji")[0])


def test_no_emoji_object_is_in_train_and_test(scripts):
    from emoji import object_of

    pack = open_pack("noto")
    sides = {}
    for key, label, split in zip(pack.keys, pack.labels, pack.split, strict=True):
        sides.setdefault((object_of(key.upper()), label), set()).add(int(split))
    assert all(len(side) == 1 for side in sides.values())
    assert len(sides) < len(pack)  # some objects do have variants


def test_no_clipart_object_is_in_train_and_test(scripts):
    from clipart import same_objects

    pack = open_pack("clipart")
    objects = same_objects(pack.rgba(range(len(pack))), pack.labels, list(pack.keys))
    sides = {}
    for title, split in zip(objects, pack.split, strict=True):
        sides.setdefault(title, set()).add(int(split))
    assert all(len(side) == 1 for side in sides.values())
    assert len(sides) < 0.95 * len(pack)


def test_what_was_left_out_is_not_in_the_pack(scripts):
    from clipart_excluded import EXCLUDED

    assert not [key for key in open_pack("clipart").keys if key.startswith(EXCLUDED)]


def test_cutouts_have_alpha_and_no_colour_where_nothing_is_seen():
    for name in ("clipart", "noto", "twemoji"):
        rgba = open_pack(name).rgba(range(0, 200, 7))
        assert rgba.shape[1:] == (64, 64, 4)
        assert (rgba[..., 3] == 0).any()
        assert (rgba[rgba[..., 3] == 0] == 0).all()


def test_background_shows_through_and_changes_the_digest():
    white, blue = (mgm.load_images("noto", background=b) for b in ((255, 255, 255), (0, 0, 255)))
    assert white[0][:, 0, 0].tolist() == [255, 255, 255]
    assert blue[0][:, 0, 0].tolist() == [0, 0, 255]
    assert white.digest != blue.digest


def test_a_pack_travels_by_name_to_another_process(name):
    images = mgm.load_images(name).subset([5, 3])
    sent = pickle.dumps(images)
    assert len(sent) < 20_000
    again = pickle.loads(sent)
    assert torch.equal(again[1], images[1])
    assert again.digest == images.digest


def test_a_damaged_pack_is_refused(tmp_path, monkeypatch):
    from mgmlib.data import packs

    write_pack(tmp_path, "toy", **toy())
    monkeypatch.setattr(packs, "FOLDER", tmp_path)
    assert len(packs.open_pack("toy")) == 3
    content = bytearray((tmp_path / "toy.npz").read_bytes())
    content[-200] ^= 1
    (tmp_path / "toy.npz").write_bytes(content)
    packs._open.cache_clear()
    with pytest.raises(ValueError, match=r"toy\.npz: SHA-256 is .* SHA256SUMS says"):
        packs.open_pack("toy")


def toy():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(1, 256, (16, 16, 4), dtype=np.uint8) for _ in range(3)]
    return {
        "pictures": pictures,
        "labels": [0, 1, -1],
        "split": [0, 1, 0],
        "classes": ["a", "b"],
        "keys": list("xyz"),
    }


def test_a_written_pack_is_read_back_and_the_same_bytes_come_again(tmp_path):
    digests = [write_pack(tmp_path, "toy", **toy()) for _ in range(2)]
    assert digests[0] == digests[1] == checksums(tmp_path)["toy.npz"]
    assert not [path for path in tmp_path.iterdir() if path.name not in ("toy.npz", "SHA256SUMS")]


def test_written_pixels_are_lossless(tmp_path, monkeypatch):
    from mgmlib.data import packs

    monkeypatch.setattr(packs, "FOLDER", tmp_path)
    write_pack(tmp_path, "lossless", **toy())
    assert (packs.open_pack("lossless").rgba(range(3)) == np.stack(toy()["pictures"])).all()
    assert mgm.Images and packs.load_pack("lossless").ids.tolist() == [0, 1]  # the third has no class


def draw(path, box, colour=(200, 30, 30, 255), size=(300, 200)):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGBA", size)
    picture.paste(colour, box)
    picture.save(path)


@pytest.fixture
def drawings(tmp_path):
    root = tmp_path / "png"
    draw(root / "round" / "a.png", (10, 10, 110, 60))
    draw(root / "round" / "a_copy.png", (40, 90, 140, 140))  # the same object elsewhere on its canvas
    draw(root / "round" / "small.png", (0, 0, 20, 20))
    draw(root / "round" / "nothing.png", (0, 0, 0, 0))
    draw(root / "round" / "out.png", (0, 0, 200, 20))
    draw(root / "square" / "deep" / "b.png", (0, 0, 200, 200))
    draw(root / "square" / "deep" / "b_bw.png", (0, 0, 40, 200), (255, 255, 255, 255))
    draw(root / "square" / "c.png", (0, 0, 100, 200), (30, 30, 200, 255))
    draw(root / "square" / "c_green.png", (0, 0, 100, 200), (30, 200, 30, 255))
    (root / "round" / "linked.png").symlink_to("../square/c.png")
    (root / "round" / "lost.png").symlink_to("nowhere.png")
    return root


def test_clipart_is_cropped_deduplicated_and_grouped_by_object(scripts, drawings):
    import clipart

    pack = clipart.build(drawings, {"round": "disc", "square": "box"}, ("round/out.png",))
    assert pack["classes"] == ["box", "disc"]
    of_key = dict(zip(pack["keys"], pack["objects"], strict=True))
    assert list(of_key) == [
        "square/c.png",
        "square/c_green.png",
        "square/deep/b.png",
        "square/deep/b_bw.png",
        "round/a.png",
    ]
    assert of_key["square/c_green.png"] == of_key["square/c.png"]  # one outline
    assert of_key["square/deep/b_bw.png"] == of_key["square/deep/b.png"]  # by name
    assert len(set(of_key.values())) == 3
    alpha = pack["pictures"][-1][..., 3]
    rows, columns = np.nonzero(alpha)
    assert (np.ptp(columns) + 1, np.ptp(rows) + 1) == (60, 30)  # 100 x 50 px, fitted with a margin of 2


def test_a_cut_out_does_not_take_colour_from_where_nothing_is_seen(scripts):
    from cutouts import cut_out

    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[..., 1] = 255  # green, but transparent
    rgba[50:150, 50:150] = (200, 0, 0, 255)
    cut = cut_out(Image.fromarray(rgba))
    assert cut[..., 1].max() == 0
    assert cut[..., 0][cut[..., 3] > 0].min() >= 190


@pytest.fixture
def styles(tmp_path):
    """Two styles of six emoji and a swatch; in the second style two of them look the same."""
    codes = ["1F3C3", "1F3C3-200D-2640-FE0F", "1F436", "1F437", "1F438", "1F3FB", "1F600"]
    entries = [
        {
            "unified": code,
            "image": f"{code.lower()}.png",
            "category": "Component" if code == "1F3FB" else "Things",
            "subcategory": "rare" if code == "1F600" else "common",
            "has_img_google": True,
            "has_img_twitter": True,
        }
        for code in codes
    ]
    roots = {"noto": tmp_path / "google", "twemoji": tmp_path / "twitter"}
    for style, root in roots.items():
        root.mkdir()
        (root / "emoji.json").write_text(json.dumps(entries[::-1]))
        for i, entry in enumerate(entries):
            grey = 100 if style == "twemoji" and entry["unified"] in ("1F437", "1F438") else 10 * i
            folder = "google" if style == "noto" else "twitter"
            draw(
                root / "img" / folder / "64" / entry["image"],
                (8, 8, 56, 56),
                (grey, grey, grey, 255),
                (64, 64),
            )
    return roots


def test_emoji_styles_keep_the_same_emoji(scripts, styles):
    import emoji

    packs = emoji.build(styles, fewest=3)
    for pack in packs.values():
        assert pack["keys"] == ["1f3c3", "1f3c3-200d-2640-fe0f", "1f436", "1f437", "1f600"]
        assert pack["labels"].tolist() == [0, 0, 0, 0, -1]
        assert pack["objects"][0] == pack["objects"][1] == "1F3C3"
    assert packs["noto"]["pictures"][4][32, 32].tolist() == [60, 60, 60, 255]


@pytest.mark.parametrize(
    ("unified", "name"),
    [
        ("1F469-200D-1F373", "1F9D1-1F373"),
        ("1F6B6-200D-2642-FE0F-200D-27A1-FE0F", "1F6B6"),
        ("1F1E6-1F1E8", "1F1E6-1F1E8"),
    ],
)
def test_gender_and_direction_make_no_object(scripts, unified, name):
    from emoji import object_of

    assert object_of(unified) == name


def write_idx(path, array):
    header = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_fashion_is_stratified_and_has_no_doubles(scripts, tmp_path):
    import fashion

    rng = np.random.default_rng(0)
    for part, n in (("train", 60), ("t10k", 40)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        images[10] = images[0]
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", (np.arange(n) % 10).astype(np.uint8))
    pack = fashion.build(tmp_path, {"train": 5, "t10k": 2})
    assert np.bincount(pack["labels"]).tolist() == [7] * 10
    assert np.bincount(pack["split"]).tolist() == [50, 20]
    assert len(set(pack["keys"])) == 70
    assert "train/10" not in pack["keys"]
    with pytest.raises(ValueError, match="IDX"):
        (tmp_path / "bad.gz").write_bytes(gzip.compress(b"GIF89a  "))
        fashion.read_idx(tmp_path / "bad.gz")


def test_a_source_that_changed_is_refused(scripts, tmp_path):
    from sources import NOTO, fetch

    (tmp_path / NOTO.file).write_bytes(b"another file")
    with pytest.raises(
        ValueError, match=r"emoji-datasource-google-16\.0\.0\.tgz: SHA-256 is .*expected fb5fd131"
    ):
        fetch(NOTO, tmp_path)
