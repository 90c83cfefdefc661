"""Files that are no weights, or more than weights: told apart, refused by name, and nothing of them runs."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

import mgmlib as mgm
from mgmlib.models.catalogue import PUBLISHED
from mgmlib.models.containers import kind_of, read_torch
from mgmlib.models.published import read_checkpoint
from mgmlib.models.safe_pickle import RefusedPickle, read_pickle

BYOL, SWAV = PUBLISHED["byol"], PUBLISHED["swav"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MGMLIB_CACHE", str(tmp_path / "cache"))


class Payload:
    """Unpickled as a pickle asks for it, it writes a file: the proof that something ran."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f"open({str(self.path)!r}, 'w').close()",)


class Shell(Payload):
    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


class Opener(Payload):
    def __reduce__(self):
        return open, (str(self.path), "w")


HOSTILE = {r"\bexec\b": Payload, r"posix\.system": Shell, r"\bopen\b": Opener}
NESTS = {
    "bare": lambda bad: bad,
    "nested": lambda bad: {"state_dict": {"conv1.weight": [({"deep": (1, [bad])},)]}},
    "beside tensors": lambda bad: {"state_dict": {"conv1.weight": torch.zeros(2)}, "epoch": bad},
}


def written(content, path, how):
    if how.startswith("torch"):
        protocol = 4 if how.endswith("4") else 2
        torch.save(content, path, _use_new_zipfile_serialization="zip" in how, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(how[-1])))
    return path


@pytest.mark.parametrize("how", ["torch zip", "torch zip 4", "torch legacy", "pickle 2", "pickle 4"])
@pytest.mark.parametrize("nest", NESTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_code_in_a_file_is_refused_by_its_name_and_does_not_run(name, nest, how, tmp_path):
    ran = tmp_path / "ran"
    content = NESTS[nest](HOSTILE[name](ran))
    pickle.loads(pickle.dumps(content))  # where nobody checks, it does run
    assert ran.exists()
    ran.unlink()
    path = written(content, tmp_path / "w.pth", how)
    told = name
    for row in (SWAV, BYOL):
        # within a bare pickle, a tensor's own name may be the first that is refused
        first = told if nest != "beside tensors" or how.startswith("torch") else rf"{told}|torch"
        with pytest.raises(ValueError, match=rf"w.pth.*({first})"):
            read_checkpoint(path, row)
    with pytest.raises(ValueError, match="w.pth"):
        mgm.load_model("timm:test_vit", weights=path)
    assert not ran.exists()


@pytest.mark.parametrize("how", ["torch zip", "torch legacy", "pickle 2"])
def test_a_pickle_named_safetensors_is_refused(how, tmp_path):
    path = written(Payload(tmp_path / "ran"), tmp_path / "w.safetensors", how)
    with pytest.raises(ValueError, match=r"w.safetensors.*named .safetensors, and holds a file of kind"):
        read_checkpoint(path, SWAV)
    with pytest.raises(ValueError, match=r"named .safetensors"):
        mgm.load_model("timm:test_vit", weights=path)
    assert not (tmp_path / "ran").exists()


# ---- the restricted unpickler: its own names turned against it


def call(module, name, *arguments):
    """Opcodes of a call of a global with text arguments."""
    texts = b"".join(b"X" + struct.pack("<I", len(a)) + a.encode() for a in arguments)
    return f"c{module}\n{name}\n".encode() + b"(" + texts + b"tR"


TRICKS = {
    "an import in dill's clothes": call("dill._dill", "_import_module", "os") + b"(X\x01\0\0\0xtR.",
    "a name by a path": call("numpy", "core.multiarray.os.system", "touch RAN") + b".",
    "a class of another kind": call("numpy", "load", "RAN") + b".",
    "another codec": call("_codecs", "encode", "x", "zip") + b".",
    "a lookup": call("dill._dill", "_get_attr", "os", "system") + b"(X\x09\0\0\0touch RANtR.",
    "a function made from code": call("dill._dill", "_create_function", "x") + b".",
    "a type": call("dill._dill", "_load_type", "CodeType") + b".",
    "an object outside": b"X\x03\0\0\0RANQ.",
    "an array of objects": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tX\x01\0\0\0btR"
        b"(K\x01(K\x01tcnumpy\ndtype\n(X\x01\0\0\0OI00\nI01\ntR(K\x03X\x01\0\0\0|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\0tbI00\n](X\x03\0\0\0RANetb."
    ),
    "an array longer than its bytes": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tX\x01\0\0\0btR"
        b"(K\x01(J\xff\xff\xff\x7ftcnumpy\ndtype\n(X\x02\0\0\0f4I00\nI01\ntR(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\0tbI00\nc_codecs\nencode\n(X\x01\0\0\0aX\x06\0\0\0latin1tRtb."
    ),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_the_allowed_names_cannot_be_turned(trick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pkl"
    path.write_bytes(b"\x80\x02" + TRICKS[trick])
    with pytest.raises(RefusedPickle):
        read_pickle(path)
    with pytest.raises(ValueError, match="w.pkl"):
        mgm.load_model("byol", weights=path)
    assert not (tmp_path / "RAN").exists()


def test_what_one_file_does_to_the_stand_ins_ends_with_it(tmp_path):
    spoil = tmp_path / "spoil.pkl"  # BUILD on the class of arrays: it would give it attributes
    spoil.write_bytes(b"\x80\x02cnumpy\ndtype\n(N}X\x05\0\0\0numpyX\x01\0\0\0xstb.")
    good = tmp_path / "good.pkl"
    good.write_bytes(
        b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\0\0\0f4I00\nI01\ntR(K\x03X\x01\0\0\0<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbc_codecs\nencode\n(X\x05\0\0\0\0\0\xc2\x80?X\x06\0\0\0latin1tRtR."
    )
    for _ in range(2):
        assert read_pickle(good) == 1.0
        try:
            read_pickle(spoil)
        except RefusedPickle as error:
            assert "put together" in str(error)


def test_plain_values_are_read(tmp_path):
    path = tmp_path / "w.pkl"
    content = {"a": [1, 2.5, None, ("x", True)], "b": {"c": "d"}}
    path.write_bytes(pickle.dumps(content, 2))
    assert read_pickle(path) == content
    path.write_bytes(pickle.dumps({"a": np.arange(6, dtype=">i2").reshape(2, 3).T}, 2))
    np.testing.assert_array_equal(read_pickle(path)["a"], np.arange(6).reshape(2, 3).T)


def test_byol_of_another_making_is_told(tmp_path):
    path = tmp_path / "w.pkl"
    for content in ({"step": 1}, [1], {"experiment_state": {"online_params": {}}}):
        path.write_bytes(pickle.dumps(content, 2))
        with pytest.raises(ValueError, match=r"w.pkl.*experiment_state with online_params and online_state"):
            mgm.load_model("byol", weights=path)


# ---- web pages, truncated and empty files


def zipped_torch():
    file = io.BytesIO()
    torch.save({"a": torch.zeros(4000)}, file)
    return file.getvalue()


def legacy_torch():
    file = io.BytesIO()
    torch.save({"a": torch.zeros(4000)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


NO_WEIGHTS = {
    "it is a web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "it is empty": b"",
    "as no format of weights does": b"GIF89a" + bytes(600),
    "it begins as a zip archive and has no end: it is truncated": zipped_torch()[:-2000],
    "truncated or damaged": legacy_torch()[:-2000],
}


@pytest.mark.parametrize("told", NO_WEIGHTS)
def test_what_is_no_file_of_weights_is_told(told, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(NO_WEIGHTS[told])
    for name in ("swav", "byol", "simclr-v1", "timm:test_vit"):
        with pytest.raises(ValueError, match=rf"w.pth.*{told}"):
            mgm.load_model(name, weights=path)


def test_a_truncated_pickle_is_told(tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"experiment_state": list(range(100))}, 2)[:-20])
    with pytest.raises(ValueError, match=r"w.pkl.*truncated"):
        mgm.load_model("byol", weights=path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth.*'pretrained', 'random' or a path"):
        mgm.load_model("swav", weights=tmp_path / "nowhere.pth")


def test_kinds_are_told_by_content(tmp_path):
    from safetensors.torch import save

    kinds = {
        "torch": zipped_torch(),
        "safetensors": save({"a": torch.zeros(2)}),
        "pickle": pickle.dumps({}, 2),
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x/model.ckpt-1.index", b"")
    kinds["bundle"] = archive.getvalue()
    for kind, content in kinds.items():
        path = tmp_path / "w.bin"
        path.write_bytes(content)
        assert kind_of(path) == kind
    path.write_bytes(legacy_torch())
    assert kind_of(path) == "torch" and list(read_torch(path)) == ["a"]


def test_a_zip_without_one_bundle_is_told(tmp_path):
    for members in (["a.index"], ["a.index", "b.index"]):
        with zipfile.ZipFile(tmp_path / "w.zip", "w") as file:
            for member in members:
                file.writestr(member, b"x" * 60)
        with pytest.raises(ValueError, match=r"w.zip.*(no a.data-00000-of-00001|one .index file, met 2)"):
            mgm.load_model("simclr-v1", weights=tmp_path / "w.zip")
