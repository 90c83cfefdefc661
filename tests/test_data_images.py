"""The sequence itself: selection, samples, digests, tensors; scikit-learn's sets; torchvision's."""

import hashlib
import io
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

import mgmlib as mgm
from mgmlib.data.split import stratified_split


@pytest.fixture
def ten():
    x = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 2, 2)
    return mgm.Images.from_tensor(x, labels=[0, 0, 0, 0, 0, 0, 1, 1, 1, 2])


def test_subset_keeps_ids_labels_and_pixels(ten):
    part = ten.subset([7, 2])
    assert part.ids.tolist() == [7, 2]
    assert part.labels.tolist() == [1, 0]
    assert [int(x[0, 0, 0]) for x in part] == [7, 2]
    assert part.subset([1]).ids.tolist() == [2]
    assert ten.subset(ten.labels == 1).ids.tolist() == [6, 7, 8]
    assert len(ten.subset([])) == 0


@pytest.mark.parametrize("indices", [[10], [-11], np.ones(9, bool)])
def test_subset_refuses_what_is_not_there(ten, indices):
    with pytest.raises(IndexError, match="10"):
        ten.subset(indices)


def test_subset_refuses_floats(ten):
    with pytest.raises(TypeError, match="float64"):
        ten.subset([0.5])


def test_per_class_is_a_seeded_sample(ten):
    part = ten.per_class(2, seed=1)
    assert np.bincount(part.labels).tolist() == [2, 2, 1]
    assert part.ids.tolist() == sorted(set(part.ids.tolist()))
    assert ten.per_class(2, seed=1).ids.tolist() == part.ids.tolist()
    assert len({tuple(ten.per_class(2, seed=s).ids) for s in range(20)}) > 5
    with pytest.raises(ValueError, match="n=0"):
        ten.per_class(0)


def test_it_cannot_be_changed(ten):
    with pytest.raises(ValueError, match="read-only"):
        ten.labels[0] = 1
    with pytest.raises(AttributeError):
        ten.name = "other"
    ten[0].fill_(99)
    assert ten[0].max() == 0


def test_digest_knows_selection_labels_and_pixels(ten):
    x = torch.stack(list(ten))
    same = mgm.Images.from_tensor(x, labels=ten.labels)
    other = x.clone()
    other[3, 0, 0, 0] += 1
    digests = [
        ten.digest,
        ten.subset(range(9)).digest,
        ten.subset(range(9, -1, -1)).digest,
        mgm.Images.from_tensor(x).digest,
        mgm.Images.from_tensor(other, labels=ten.labels).digest,
    ]
    assert same.digest == ten.digest
    assert len(set(digests)) == len(digests)


def test_positions(ten):
    assert torch.equal(ten[-1], ten[9])
    assert torch.equal(ten[np.int64(3)], ten[3])
    with pytest.raises(IndexError, match="10 images"):
        ten[10]


def test_float_tensor_is_rounded_to_bytes():
    x = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    assert mgm.Images.from_tensor(x)[0].flatten().tolist() == [0, 128, 255]
    assert mgm.Images.from_tensor(x, name="mine").classes == ("mine",)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 4, 4),
        torch.zeros(1, 1, 4, 4),
        torch.full((1, 3, 2, 2), 1.5),
        torch.full((1, 3, 2, 2), torch.nan),
    ],
)
def test_other_tensors_are_refused(x):
    with pytest.raises(ValueError, match="expected"):
        mgm.Images.from_tensor(x)


@pytest.mark.parametrize("labels", [[0, 1], [-1], [0.5]])
def test_labels_of_a_tensor_are_checked(labels):
    with pytest.raises(ValueError, match="labels"):
        mgm.Images.from_tensor(torch.zeros(1, 3, 2, 2), labels=labels)


def test_split_keeps_objects_whole_and_classes_in_proportion():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    objects = [f"{label}-{i // 2}" for i, label in enumerate(labels)]
    split = stratified_split(labels, objects)
    assert [int(split[labels == c].sum()) for c in range(3)] == [20, 10, 2]
    of_object = {}
    for name, part in zip(objects, split, strict=True):
        assert of_object.setdefault(name, part) == part
    order = np.random.default_rng(0).permutation(160)
    assert (stratified_split(labels[order], [objects[i] for i in order]) == split[order]).all()


def test_digits():
    digits = mgm.load_images("digits")
    train, test = (mgm.load_images("digits", split=s) for s in ("train", "test"))
    assert (len(digits), digits.classes) == (1797, tuple("0123456789"))
    assert digits[0].shape == (3, 8, 8)
    assert max(int(x.max()) for x in digits.subset(range(50))) == 255
    assert sorted([*train.ids, *test.ids]) == list(range(1797))
    assert abs(len(test) / 1797 - 0.2) < 0.01
    assert torch.equal(test[0], digits[int(test.ids[0])])
    with pytest.raises(ValueError, match=r"split='val'.*'train', 'test'"):
        mgm.load_images("digits", split="val")


def test_photos():
    photos = mgm.load_images("photos")
    assert photos.classes == ("china", "flower")
    assert [tuple(x.shape) for x in photos] == [(3, 427, 640)] * 2
    assert photos.subset([1]).digest != photos.subset([0]).digest
    with pytest.raises(ValueError, match="no splits"):
        mgm.load_images("photos", split="test")


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """CIFAR-10 in torchvision's own layout, 6 test and 4 train images; gives root and test pixels."""
    from torchvision.datasets import CIFAR10

    rng = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    pixels = rng.integers(0, 256, (10, 3 * 32 * 32), dtype=np.uint8)
    md5_train = write("data_batch_1", {"data": pixels[:4], "labels": [0, 1, 0, 1]})
    md5_test = write("test_batch", {"data": pixels[4:], "labels": [0, 1, 2, 0, 1, 2]})
    names = ["airplane", "automobile", "bird"]
    md5_meta = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5_train]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5_test]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5_meta})
    return tmp_path, torch.from_numpy(pixels[4:].reshape(-1, 3, 32, 32))


def test_cifar10_originals(tiny_cifar):
    root, pixels = tiny_cifar
    images = mgm.load_images("cifar10", root=root, jpeg_quality=None)
    assert images.classes == ("airplane", "automobile", "bird")
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(torch.stack(list(images)), pixels)
    assert len(mgm.load_images("cifar10", split="train", root=root, download=False)) == 4


def test_cifar10_is_reencoded_as_jpeg_75_by_default(tiny_cifar):
    root, pixels = tiny_cifar
    stream = io.BytesIO()
    Image.fromarray(pixels[1].permute(1, 2, 0).numpy()).save(stream, "JPEG")  # Pillow's default quality is 75
    reencoded = torch.from_numpy(np.asarray(Image.open(stream)).transpose(2, 0, 1).copy())
    images = mgm.load_images("cifar10", root=root)
    assert torch.equal(images[1], reencoded)
    digests = {mgm.load_images("cifar10", root=root, jpeg_quality=q).digest for q in (75, 90, None)}
    assert len(digests) == 3


def test_torchvision_set_that_is_not_there(tmp_path):
    with pytest.raises(RuntimeError, match=r"'cifar10' is not whole in root=.*CIFAR10"):
        mgm.load_images("cifar10", root=tmp_path, download=False)
    with pytest.raises(ValueError, match=r"split='val': 'cifar10' has 'train', 'test'"):
        mgm.load_images("cifar10", split="val", root=tmp_path)


def test_torchvision_set_of_files(tmp_path):
    for name, red in (("AnnualCrop", 1), ("Forest", 2)):
        folder = tmp_path / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64), (red, 0, 0)).save(folder / "a.png")
    images = mgm.load_images("eurosat", root=tmp_path, download=False)
    assert images.classes == ("AnnualCrop", "Forest")
    assert [int(x[0, 0, 0]) for x in images] == [1, 2]
    (tmp_path / "eurosat" / "2750" / "Forest" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Forest/a\.png: empty file"):
        images[1]


def test_every_torchvision_name_has_its_class_and_splits():
    import inspect

    from torchvision import datasets

    from mgmlib.data.torchvision_sets import SETS

    for name, (kind, splits) in SETS.items():
        accepted = inspect.signature(getattr(datasets, kind).__init__).parameters
        assert name == kind.lower()
        assert bool(splits) == ("train" in accepted or "split" in accepted), name
        if "train" in accepted:
            assert splits == ("train", "test")
