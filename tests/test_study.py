"""The study at full size, rehearsed small: resumable, honest about its weights, from folder to figures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mgmlib as mgm
import paper
from mgmlib import study as studies
from mgmlib.models import PUBLISHED, STUDIED
from mgmlib.models.synthetic import MARK, write_synthetic
from mgmlib.study import Study, results, run

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "n_classes": 2,
    "n_per_class": 5,
    "n_images": 2,
    "n_views": 3,
    "settings": ("crop",),
    "input_size": 32,
}
MODELS = ("swav", "simclr-v1")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory):
    """Synthetic weights of two models, and the images."""
    home = tmp_path_factory.mktemp("study")
    for name in MODELS:
        write_synthetic(name, home / "weights")
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, 3, 40, 40), dtype=torch.uint8, generator=rng)
    images = mgm.Images.from_tensor(pixels, np.repeat([0, 1], 6), name="noise")
    study = Study(models=MODELS, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MGMLIB_CACHE", str(home / "cache"))
        said = []
        failed = run(study, images, home / "out", home / "weights", say=said.append, progress=False)
    assert not failed and len(said) == 2
    return home, study, images


def again(home, study, images, folder="out", weights="weights"):
    said = []
    failed = run(study, images, home / folder, home / weights, say=said.append, cache=False, progress=False)
    return said, failed


def test_every_model_has_a_table_that_says_what_it_was_made_from(rehearsed):
    home, study, images = rehearsed
    table = results(home / "out")
    assert list(table["model"].unique()) == ["simclr-v1", "swav"]  # the catalogue's order
    assert set(table["weights"]) == {"synthetic"} and set(table["manifold"]) == {"semantic", "crop"}
    assert set(table["metric"]) == {"diameter", "affinity", "n_neighbors", "dimension"}
    made_from = table.attrs["provenance"]["swav"]
    assert made_from["weights"] == "synthetic" and len(made_from["weights_sha256"]) == 64
    assert made_from["images"] == "noise" and len(made_from["images_digest"]) == 64
    assert made_from["n_semantic"] == 10 and made_from["n_images"] == 2 and made_from["settings"] == ["crop"]
    encoder = mgm.load_model("swav", weights=home / "weights/swav/swav_800ep_pretrain.pth.tar", input_size=32)
    assert made_from["encoder_digest"] == encoder.digest


def test_a_table_is_what_profile_gives(rehearsed):
    home, study, images = rehearsed
    encoder = mgm.load_model("swav", weights=home / "weights/swav/swav_800ep_pretrain.pth.tar", input_size=32)
    semantic, viewed = study.select(images)
    options = {"settings": ("crop",), "n_views": 3, "cache": False, "progress": False}
    expected = mgm.profile(encoder, semantic, viewed, **options).set_index(["manifold", "metric"])
    table = results(home / "out").query("model == 'swav'").set_index(["manifold", "metric"])
    for column in ("mean", "low", "high"):
        np.testing.assert_allclose(table[column], expected[column], rtol=1e-5)


def test_what_is_there_is_not_measured_again(rehearsed, monkeypatch):
    home, study, images = rehearsed
    before = {path.name: path.stat().st_mtime_ns for path in (home / "out").iterdir()}
    monkeypatch.setattr(studies, "profile", lambda *_a, **_o: pytest.fail("measured again"))
    said, failed = again(home, study, images)
    assert not failed and all("is there already" in line for line in said)
    assert {path.name: path.stat().st_mtime_ns for path in (home / "out").iterdir()} == before


def test_one_missing_or_outdated_table_is_measured_alone(rehearsed, monkeypatch):
    home, study, images = rehearsed
    target, measured = home / "out" / "swav.csv", []
    text = target.read_text(encoding="utf-8")
    profile = studies.profile
    monkeypatch.setattr(studies, "profile", lambda e, *a, **o: measured.append(e.name) or profile(e, *a, **o))
    target.unlink()
    again(home, study, images)
    assert measured == ["swav"] and target.read_text(encoding="utf-8") == text
    target.write_text(text.replace('"n_views": 3', '"n_views": 4'), encoding="utf-8")
    again(home, study, images)
    assert measured == ["swav"] * 2 and target.read_text(encoding="utf-8") == text


def test_one_failing_model_does_not_stop_the_others(rehearsed, monkeypatch):
    home, study, images = rehearsed
    profile = studies.profile

    def fails(encoder, *arguments, **options):
        if encoder.name == "swav":
            raise RuntimeError("out of memory")
        return profile(encoder, *arguments, **options)

    monkeypatch.setattr(studies, "profile", fails)
    said, failed = again(home, study, images, "elsewhere")
    assert failed == {"swav": "RuntimeError: out of memory"}
    assert [path.name for path in (home / "elsewhere").iterdir()] == ["simclr-v1.csv"]


def test_missing_weights_are_told_before_anything_is_measured(rehearsed):
    home, study, images = rehearsed
    lacking = Study(models=(*MODELS, "moco-v2"), **SMALL)
    with pytest.raises(FileNotFoundError, match=r"not there: .*moco-v2.moco_v2_800ep_pretrain.pth.tar$"):
        again(home, lacking, images)


def test_weights_without_the_mark_count_as_published(rehearsed):
    home, study, images = rehearsed
    (home / "weights" / MARK).rename(home / "aside")
    try:
        again(home, Study(models=("swav",), **SMALL), images, "unmarked")
    finally:
        (home / "aside").rename(home / "weights" / MARK)
    table = results(home / "unmarked")
    assert set(table["weights"]) == {"published"}
    assert table.attrs["provenance"]["swav"]["published_hash"] == "none published"


def test_no_tables_are_an_empty_table(tmp_path):
    table = results(tmp_path)
    assert table.empty and table.attrs["provenance"] == {} and {"weights", "model"} <= set(table)


def test_parameter_files_are_those_of_the_study():
    full, dry = (Study.read(ROOT / f"notebooks/params/{name}.yaml") for name in ("paper", "paper-dry"))
    assert full.models == dry.models == STUDIED and len(full.models) == 14
    assert full.settings == dry.settings == ("all", "crop", "color-jitter", "rotate", "blur")
    assert (dry.n_images, dry.n_views, dry.n_classes * dry.n_per_class) == (20, 8, 20)
    assert full.n_forward == 100 * 50 + 5 * 200 * 50
    assert full.hours(10) == pytest.approx(14 * full.n_forward / 10 / 3600)


def test_bad_parameters_are_told(tmp_path):
    path = tmp_path / "p.yaml"
    for text, told in (("n_image: 3", "unknown n_image; known: models"), ("models: [swaw]", "unknown swaw")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=told):
            Study.read(path)
    images = mgm.Images.from_tensor(torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="no class of 'tensor' has 5 images"):
        Study().select(images)


def test_the_rehearsal_goes_from_checkpoints_to_marked_figures(tmp_path, monkeypatch, capsys):
    """`make paper-dry`, with two models and fewer views."""
    from mgmlib import plots

    params = tmp_path / "p.yaml"
    params.write_text(json.dumps({**SMALL, "models": ["supervised", "byol"]}), encoding="utf-8")
    monkeypatch.setenv("MGMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    monkeypatch.setattr(paper, "REHEARSAL", tmp_path / "dry")
    marked, mark = [], plots.mark
    monkeypatch.setattr(plots, "mark", lambda figure, text: marked.append(text) or mark(figure, text))
    paper.rehearse(params, tmp_path / "out")
    figures = list((tmp_path / "_build/figures/out").glob("*.png"))
    assert len(figures) == 5 and marked == ["synthetic weights"] * 5
    assert all(figure.stat().st_size > 5000 for figure in figures)
    assert not (tmp_path / "dry" / "weights").exists()
    classes = sorted((tmp_path / "dry" / "images").iterdir())
    assert len(classes) == 2 and all(len(list(c.iterdir())) == 5 for c in classes)
    assert set(results(tmp_path / "out")["weights"]) == {"synthetic"}
    assert "the rehearsal took" in capsys.readouterr().out


def test_published_results_are_drawn_unmarked(rehearsed, tmp_path, monkeypatch):
    from mgmlib import plots

    home, _, _ = rehearsed
    text = (home / "out" / "swav.csv").read_text(encoding="utf-8").replace("synthetic", "published")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "swav.csv").write_text(text, encoding="utf-8")
    monkeypatch.setattr(paper, "ROOT", tmp_path)
    monkeypatch.setattr(plots, "mark", lambda *_: pytest.fail("marked"))
    paper.draw(tmp_path / "out")


def test_committed_tables_of_the_rehearsal_are_whole():
    folder = ROOT / "notebooks/results/paper-dry"
    table = results(folder)
    assert tuple(table["model"].unique()) == STUDIED and set(table["weights"]) == {"synthetic"}
    assert table.groupby("model").size().eq(6 * 4).all()
    assert table.groupby("model")["manifold"].unique().map(tuple).nunique() == 1
    study = Study.read(ROOT / "notebooks/params/paper-dry.yaml")
    for name, made_from in table.attrs["provenance"].items():
        assert made_from["n_views"] == study.n_views and made_from["n_images"] == study.n_images
        assert made_from["input_size"] == study.input_size and name in PUBLISHED
    assert table[["mean", "low", "high"]].notna().all(axis=None)
    assert (table["low"] <= table["high"]).all()


def test_one_network_in_a_dozen_formats_has_one_geometry():
    """The rehearsal's checkpoints hold one network: models with the same preprocessing must agree."""
    table = results(ROOT / "notebooks/results/paper-dry").set_index(["manifold", "metric"])
    alike = {}
    for name, rows in table.groupby("model"):
        key = (PUBLISHED[name].normalisation, PUBLISHED[name].interpolation)
        alike.setdefault(key, []).append(rows[["mean", "low", "high"]])
    assert sorted(map(len, alike.values())) == [1, 2, 11]
    for tables in alike.values():
        for other in tables[1:]:
            pd.testing.assert_frame_equal(other, tables[0], rtol=1e-5)
