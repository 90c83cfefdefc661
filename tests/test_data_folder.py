"""Image folders: classes, order, splits, broken files, digests."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import mgmlib as mgm
from mgmlib.data import ImageError


def save(path, colour=(255, 0, 0), size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def pets(tmp_path):
    """Two classes, one of them nested, with files that are no images."""
    root = tmp_path / "pets"
    save(root / "dog" / "b.png", (2, 0, 0))
    save(root / "dog" / "a.PNG", (1, 0, 0))
    save(root / "cat" / "deep" / "c.png", (3, 0, 0))
    (root / "dog" / "notes.txt").write_text("good dogs")
    (root / "dog" / ".hidden.png").write_text("no image")
    (root / "empty").mkdir()
    return root


def reds(images):
    return [int(x[0, 0, 0]) for x in images]


def test_a_class_per_sub_folder_in_sorted_order(pets):
    images = mgm.load_images(pets)
    assert images.classes == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 1]
    assert images.ids.tolist() == [0, 1, 2]
    assert reds(images) == [3, 1, 2]
    assert images[0].shape == (3, 4, 5)
    assert images.name == "pets"
    assert repr(images) == "Images('pets': 3 images, 2 classes)"


def test_flat_folder_is_one_class(tmp_path):
    for i in (2, 1):
        save(tmp_path / "flat" / f"{i}.png", (i, 0, 0))
    images = mgm.load_images(tmp_path / "flat")
    assert images.classes == ("flat",)
    assert images.labels.tolist() == [0, 0]
    assert reds(images) == [1, 2]


def test_relative_folder_by_its_bare_name(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    assert len(mgm.load_images("pets")) == 3


def test_loose_images_beside_classes_are_refused_or_skipped(pets):
    save(pets / "stray.png")
    with pytest.raises(ImageError, match=r"stray\.png.*loose"):
        mgm.load_images(pets)
    with pytest.warns(UserWarning, match="1 file skipped"):
        images = mgm.load_images(pets, on_error="skip")
    assert len(images) == 3
    assert images.skipped[0][0] == "stray.png"


def test_split_folders(tmp_path):
    save(tmp_path / "train" / "dog" / "a.png", (1, 0, 0))
    save(tmp_path / "Validation" / "dog" / "b.png", (2, 0, 0))
    with pytest.raises(ValueError, match=r"splits 'Validation', 'train'.*pass split="):
        mgm.load_images(tmp_path)
    assert reds(mgm.load_images(tmp_path, split="val")) == [2]
    assert mgm.load_images(tmp_path, split="val").name == f"{tmp_path.name}-Validation"
    assert reds(mgm.load_images(tmp_path, split="train")) == [1]
    with pytest.raises(ValueError, match=r"split='test'.*'Validation', 'train'"):
        mgm.load_images(tmp_path, split="test")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("boat", "train"):
        save(tmp_path / name / "a.png")
    assert mgm.load_images(tmp_path).classes == ("boat", "train")


def make_broken(root):
    """Write files of ten broken kinds into class folder `bad`; return their relative names."""
    bad = root / "bad"
    bad.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(bad / "cut.jpg")
    (bad / "cut.jpg").write_bytes((bad / "cut.jpg").read_bytes()[:500])
    Image.fromarray(noise).save(bad / "cut.png")
    (bad / "cut.png").write_bytes((bad / "cut.png").read_bytes()[:500])
    Image.fromarray(np.array([[0.0, 9.0]], np.float32)).save(bad / "float.tif")
    Image.new("1", (3000, 2000)).save(bad / "huge.png")
    (bad / "empty.jpg").touch()
    (bad / "text.jpg").write_text("just a note")
    (bad / "page.png").write_text("<!DOCTYPE html>")
    (bad / "folder.png").mkdir()
    (bad / "ring.png").symlink_to("ring.png")
    (bad / "gone.png").symlink_to("nowhere.png")
    (bad / "round").symlink_to(root, target_is_directory=True)
    return sorted(f"bad/{path.name}" for path in bad.iterdir())


def test_broken_files_are_skipped_counted_and_listed(pets):
    names = make_broken(pets)
    save(pets / "bad" / "fine.png", (7, 0, 0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = mgm.load_images(pets, on_error="skip", max_pixels=1_000_000)
    ours = [str(w.message) for w in caught if "skipped" in str(w.message)]
    assert len(ours) == 1
    assert f"{len(names)} files skipped" in ours[0]
    assert [file for file, _ in images.skipped] == names
    assert all(reason for _, reason in images.skipped)
    assert images.classes == ("bad", "cat", "dog")
    assert reds(images) == [7, 3, 1, 2]
    assert f"{len(names)} skipped" in repr(images)


@pytest.mark.parametrize("name", ["folder.png", "ring.png", "gone.png", "round"])
def test_a_broken_tree_is_met_at_once(pets, name):
    make_broken(pets)
    for path in (pets / "bad").iterdir():
        if path.name != name:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with pytest.raises(ImageError, match=rf"bad/{name}.*on_error='skip'"):
        mgm.load_images(pets)


def test_a_broken_file_is_met_when_it_is_asked_for(pets):
    (pets / "dog" / "a.PNG").write_bytes(b"")
    images = mgm.load_images(pets)
    assert images[0].shape == (3, 4, 5)
    with pytest.raises(ImageError, match=r"dog/a\.PNG: empty file"):
        images[1]


def test_linked_folders_and_files_are_followed(pets):
    (pets / "hound").symlink_to(pets / "dog", target_is_directory=True)
    (pets / "cat" / "z.png").symlink_to(pets / "dog" / "b.png")
    images = mgm.load_images(pets)
    assert images.classes == ("cat", "dog", "hound")
    assert reds(images) == [3, 2, 1, 2, 1, 2]


def test_only_broken_files(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match=r"no images.*1 file skipped, the first a\.png: empty file"):
        mgm.load_images(tmp_path, on_error="skip")


def test_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "a.txt").touch()
    with pytest.raises(ValueError, match=r"no images here; it holds 1 \.txt; images end in \.jpg"):
        mgm.load_images(tmp_path)


def test_missing_path_says_what_is_beside_it(pets):
    with pytest.raises(FileNotFoundError, match=r"pots: no such folder; .* holds: pets"):
        mgm.load_images(pets.parent / "pots")


def test_a_file_is_no_folder(pets):
    with pytest.raises(NotADirectoryError, match="is a file"):
        mgm.load_images(pets / "dog" / "b.png")


def test_unknown_name_gets_a_suggestion_and_the_list():
    with pytest.raises(ValueError, match=r"'clipat'.*did you mean 'clipart'.*torchvision: cifar10"):
        mgm.load_images("clipat")


@pytest.mark.parametrize("options", [{"on_error": "ignore"}, {"max_pixels": 0}, {"jpeg_quality": 30}])
def test_options_are_checked(pets, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        mgm.load_images(pets, **options)


def test_source_of_another_type():
    with pytest.raises(TypeError, match="source is a int"):
        mgm.load_images(3)


def test_digest_follows_content_not_place(pets):
    before = mgm.load_images(pets).digest
    moved = pets.rename(pets.parent / "moved")
    assert mgm.load_images(moved).digest == before
    (moved / "dog" / "b.png").rename(moved / "dog" / "c.png")
    renamed = mgm.load_images(moved).digest
    save(moved / "dog" / "c.png", (9, 0, 0))
    repainted = mgm.load_images(moved).digest
    assert len({before, renamed, repainted}) == 3


def test_digest_knows_the_background(pets):
    assert mgm.load_images(pets).digest != mgm.load_images(pets, background=(0, 0, 0)).digest


def test_images_pass_to_another_process_by_pickle(pets):
    images = mgm.load_images(pets)
    again = pickle.loads(pickle.dumps(images))
    assert all(torch.equal(a, b) for a, b in zip(images, again, strict=True))
    assert again.digest == images.digest
