"""The pocket zoo: its runs, what is published of them, and `load_model("pocket:...")`."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import mgmlib as mgm
import zoo as script
from mgmlib.augment import STUDY_SETTINGS
from mgmlib.data.images import Images
from mgmlib.metrics import METRICS, manifold_metrics
from mgmlib.models import PUBLISHED
from mgmlib.pretrain import pocket, publish
from mgmlib.pretrain.config import Config
from mgmlib.pretrain.methods import METHODS
from mgmlib.pretrain.records import ASSETS, geometry, manifolds, manifolds_file, records, repeated
from mgmlib.pretrain.train import Trainer
from mgmlib.pretrain.zoo import FOURTEEN, INITIAL, PARADIGMS, ZOO, paradigm, recipe, runs, varied, zoo_config

RECORDS = sorted((ASSETS / "runs").glob("*.json"))
TRAINED = [path for path in RECORDS if not path.name.startswith(tuple(INITIAL))]


def pictures(per_class=4, classes=10, seed=0):
    """Noise images of ten colours."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    colors = np.random.default_rng(9).integers(40, 215, (classes, 3, 1, 1))
    pixels = np.clip(colors[labels] + rng.normal(0, 30, (len(labels), 3, 32, 32)), 0, 255)
    return Images.from_tensor(torch.as_tensor(pixels.astype(np.uint8)), labels)


@pytest.fixture
def few(monkeypatch):
    """Manifolds of six points."""
    for size, value in (("PER_CLASS", 6), ("N_VIEWS", 6), ("K", 5)):
        monkeypatch.setattr(publish, size, value)


def tiny(name, seed=0):
    """The zoo's configuration of a run, cut down to three steps."""
    return varied(zoo_config(name, seed), n_views=96, batch=16)


@pytest.mark.parametrize(
    "text, values",
    [
        ("0.1,0.3", [0.1, 0.3]),
        ("true", [True]),
        ("sgd,adamw", ["sgd", "adamw"]),
        ("[0.02,0.04],[0.04,0.07]", [[0.02, 0.04], [0.04, 0.07]]),
    ],
)
def test_a_grid_of_trials_is_read_as_numbers_lists_or_words(text, values):
    assert script._values(text) == values


# --- which runs there are ---


def test_the_zoo_has_every_method_and_three_seeds_of_each_of_the_fourteen():
    assert len(FOURTEEN) == 14
    assert {zoo_config(name).method for name in ZOO} == set(METHODS)
    assert [run for run in runs() if run[0] == "byol"] == [("byol", 0), ("byol", 1), ("byol", 2)]
    assert [run for run in runs() if run[0] == "vicreg"] == [("vicreg", 0)]
    assert len(runs()) == 14 * 3 + 7 + 2 * 3


def test_every_run_has_the_same_budget():
    assert {zoo_config(name).n_views for name in ZOO} == {2_400_000}


def test_an_unknown_name_lists_the_zoo():
    with pytest.raises(ValueError, match="name='bjol': the pocket zoo has insdis, moco-v1"):
        mgm.load_model("pocket:bjol")


def test_varied_tells_the_fields_of_a_run_from_the_options_of_its_method():
    config = varied(zoo_config("moco-v2"), lr=0.3, tau=0.1)
    assert config.lr == 0.3 and config.options["tau"] == 0.1


# --- encoders ---


def test_random_weights_are_those_that_training_starts_from(tmp_path):
    encoder = mgm.load_model("pocket:byol", weights="random", seed=5)
    trainer = Trainer(tiny("byol", 5), pictures(), tmp_path)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert encoder.dim == 128 and encoder.input_size == 32
    trained = trainer.method.backbone.eval()(trainer.normalize(x))  # another memory layout: not the same bits
    assert torch.allclose(encoder(x), trained, atol=1e-5)


def test_a_run_that_is_not_published_is_trained_on_demand_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MGMLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(pocket, "ASSETS", tmp_path / "nothing")
    monkeypatch.setattr(pocket, "zoo_config", tiny)
    monkeypatch.setattr(pocket, "load_images", lambda *_, **__: pictures())
    with pytest.warns(UserWarning, match=r"pocket:simsiam, seed 1, is trained now: some minutes; kept in"):
        first = mgm.load_model("pocket:simsiam", seed=1)
    assert (tmp_path / "zoo/simsiam-s1/weights.safetensors").is_file()
    monkeypatch.setattr(pocket, "load_images", None)  # would fail, if it were called
    assert mgm.load_model("pocket:simsiam", seed=1).digest == first.digest


def test_how_long_a_run_takes_is_told_from_those_that_were_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(pocket, "ASSETS", tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/random-vit-s0.json").write_text('{"name": "random-vit", "seed": 0}')
    assert pocket._minutes("byol") is None
    for name, device, seconds in (("swav", "cpu", 600), ("byol", "cpu", 300), ("moco-v1", "cuda", 60)):
        run = {"name": name, "seed": 0, "device": device, "seconds": seconds}
        (tmp_path / f"runs/{name}-s0.json").write_text(json.dumps(run))
    assert pocket._minutes("byol") == 5
    assert pocket._minutes("dino") == pocket._minutes("moco-v1") == 7.5, "on one core"


def test_publishing_a_run_writes_what_the_book_and_the_loader_read(few, tmp_path, monkeypatch):
    trainer = Trainer(tiny("supervised"), pictures(), tmp_path / "run")
    trainer.run(progress=False, snapshots=(0, 1, 2, 3, trainer.steps))
    images = pictures(per_class=6), pictures(per_class=6, seed=1)
    publish.publish("supervised", tmp_path / "run", *images, tmp_path / "assets")
    publish.publish_initial("random-vit", 0, *images, tmp_path / "assets")
    written = {str(p.relative_to(tmp_path / "assets")) for p in (tmp_path / "assets").rglob("*.*")}
    run = "supervised-s0"
    snapshots = {f"training/{run}-{step:06d}.safetensors" for step in (0, 1, 2, 3)}
    assert written == snapshots | {
        *(f"runs/{run}.json", f"runs/{run}.csv", f"metrics/{run}.csv", f"training/{run}.csv"),
        *(f"weights/{run}.safetensors", f"embeddings/{run}.safetensors"),
        *(f"groups/{run}.csv", f"depth/{run}.csv", "runs/random-vit-s0.json"),
        "embeddings/random-vit-s0.safetensors",
        *(f"{table}/random-vit-s0.csv" for table in ("metrics", "groups", "depth")),
    }
    metrics, groups, depth = (
        pd.read_csv(tmp_path / "assets" / name / f"{run}.csv") for name in ("metrics", "groups", "depth")
    )
    assert (
        {*metrics["manifold"]} == {*groups["manifold"]} == {"semantic", *STUDY_SETTINGS, *publish.UNSTUDIED}
    )
    crop = metrics[metrics["manifold"] == "crop"].set_index("metric")
    ours = groups[groups["manifold"] == "crop"]
    assert np.isclose(ours["diameter"].mean(), crop["mean"]["diameter"], rtol=1e-4)
    assert np.isclose(ours["n_neighbors"].std(), crop["spread"]["n_neighbors"], rtol=1e-4)
    assert depth["layer"].tolist()[:: 2 * len(METRICS)] == ["stem", *(f"stages.{i}" for i in range(4))]
    table = records(tmp_path / "assets")
    assert table["name"].tolist() == ["supervised", "random-vit"]
    assert table["backbone"].tolist() == ["pocket-resnet", "pocket-vit"]
    assert table["config_digest"][0] == tiny("supervised").digest
    monkeypatch.setattr(pocket, "ASSETS", tmp_path / "assets")
    x = torch.rand(2, 3, 32, 32)
    trained = trainer.method.backbone.eval()(trainer.normalize(x))
    assert (mgm.load_model("pocket:supervised")(x) - trained).norm() < 0.02 * trained.norm()  # float16
    (tmp_path / f"assets/weights/{run}.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="its sha256 is not the one of the run's record"):
        mgm.load_model("pocket:supervised")


def test_verifying_passes_on_what_was_published_and_names_what_was_not(few, tmp_path, monkeypatch, capsys):
    Trainer(tiny("byol"), pictures(), tmp_path / "run").run(progress=False)
    images = pictures(per_class=6)
    publish.publish("byol", tmp_path / "run", images, images, tmp_path)
    monkeypatch.setattr(pocket, "ASSETS", tmp_path)
    monkeypatch.setattr(script, "ASSETS", tmp_path)
    monkeypatch.setattr(script.mgm, "load_images", lambda *_, **__: images)
    asked = SimpleNamespace(method=None, seed=None, images="", out=tmp_path)
    script.verify(asked)
    assert capsys.readouterr().out == "byol-s0: relative difference 0.0e+00\n"
    other = manifolds("byol-s0", tmp_path)
    other["crop"].z[3] += 1
    (tmp_path / "embeddings/byol-s0.safetensors").write_bytes(manifolds_file(other))
    with pytest.raises(SystemExit, match="more than 0.01 from the published embeddings: byol-s0"):
        script.verify(asked)


def test_a_run_that_is_repeated_is_set_beside_its_record(few, tmp_path, monkeypatch, capsys):
    images = pictures(per_class=6)
    Trainer(tiny("byol"), images, tmp_path / "run").run(progress=False)
    assert repeated(tmp_path).empty
    publish.publish("byol", tmp_path / "run", images, images, tmp_path)
    monkeypatch.setattr(script, "ASSETS", tmp_path)
    monkeypatch.setattr(script, "zoo_config", tiny)
    monkeypatch.setattr(script.mgm, "load_images", lambda *_, **__: images)
    script.repeat(SimpleNamespace(method=None, seed=0, images="", out=tmp_path, device="cpu"))
    again = repeated(tmp_path).iloc[0]
    assert again["name"] == "byol" and again["weights_sha256"] == again["again_weights_sha256"]
    assert (again["linear"], again["knn"]) == (again["again_linear"], again["again_knn"])
    assert capsys.readouterr().out.endswith("weights the same as those published, bit for bit\n")


# --- what is committed ---


@pytest.mark.parametrize("path", TRAINED, ids=lambda p: p.stem)
def test_a_published_run_is_the_one_that_its_configuration_asks_for(path):
    run = json.loads(path.read_text())
    config = Config(**run["config"])
    assert config == zoo_config(run["name"], run["seed"])
    assert config.digest == run["config_digest"]
    assert len(pd.read_csv(path.with_suffix(".csv"))) > 30
    if run["seed"] == 0:
        weights = (ASSETS / "weights" / f"{path.stem}.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == run["weights_sha256"]
        assert mgm.load_model(f"pocket:{run['name']}").dim == 128


@pytest.mark.parametrize("path", [p for p in TRAINED if p.stem.endswith("-s0")], ids=lambda p: p.stem)
def test_the_published_metrics_are_those_of_the_published_embeddings(path):
    table = pd.read_csv(ASSETS / "metrics" / f"{path.stem}.csv")
    found = manifolds(path.stem)
    assert {*found} == {"semantic", *STUDY_SETTINGS}
    for manifold in ("semantic", "crop"):
        again = manifold_metrics(found[manifold], k=publish.K)
        said = table[table["manifold"] == manifold].reset_index(drop=True)
        assert np.allclose(again["mean"], said["mean"], rtol=1e-4)
        assert np.allclose(again["low"], said["low"], rtol=1e-3)


def test_the_tables_of_all_runs_are_read_as_one():
    groups, found = geometry("groups"), records()
    named = groups[["model", "seed"]].drop_duplicates().to_numpy()
    assert named.tolist() == found[["name", "seed"]].to_numpy().tolist()
    assert not groups.drop(columns="affinity").isna().any(axis=None)
    assert {*geometry("depth")["manifold"]} == {"semantic", "all"}
    assert geometry("training")["step"].min() == 0


def test_the_published_files_are_all_of_known_runs():
    known = {f"{name}-s{seed}" for name, seed in runs()} | {
        f"{name}-s{seed}" for name in INITIAL for seed in range(3)
    }
    assert {path.stem for path in RECORDS} <= known
    size = sum(p.stat().st_size for p in ASSETS.parent.rglob("*") if p.is_file())
    assert size < 100e6


def test_every_run_has_one_paradigm_and_the_fourteen_that_of_the_catalogue():
    named = [name for names in PARADIGMS.values() for name in names]
    assert sorted(named) == sorted([*ZOO, *INITIAL])
    assert all(paradigm(name) == PUBLISHED[name].paradigm for name in FOURTEEN)


def test_recipes_are_those_of_the_published_models():
    assert not any(recipe("supervised")[step] for step in ("color-jitter", "grayscale", "blur", "solarize"))
    assert recipe("byol")["solarize"] and not recipe("simclr-v1")["solarize"]
    assert recipe("moco-v2")["blur"] and not recipe("moco-v1")["blur"]
    assert recipe("pirl")["jigsaw"] and recipe("swav")["multi-crop"] and recipe("infomin")["RandAugment"]
