"""Downloads of weights, from a server of our own: resumed, hashed, atomic; mirrors; and what is no file."""

import hashlib
import http.server
import io
import multiprocessing
import os
import threading

import pytest
import torch

import mgmlib as mgm
from mgmlib.models import download
from mgmlib.models.download import Unavailable, fetch


def weights(seed, size=200_000):
    file = io.BytesIO()
    torch.save({"a": torch.randn(size, generator=torch.Generator().manual_seed(seed))}, file)
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; knows ranges and tags; hangs up after ``server.cuts`` bytes."""

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        content, kind = server.files.get(self.path, (None, None))
        if content is None:
            return self.send_error(404)
        tag = server.tag or f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == tag and server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", kind)
        self.send_header("ETag", tag)
        self.end_headers()
        stop = start + server.cuts.pop(0) if server.cuts else len(content)
        self.wfile.write(content[start:stop])
        if stop < len(content):
            self.connection.close()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.asked, server.cuts, server.ranges, server.tag = {}, [], [], True, None
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MGMLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MGMLIB_MIRROR", raising=False)
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def published(server):
    """One published file: what `fetch` is told, and its content."""
    content = weights(0)
    server.files["/w.pth"] = (content, "application/octet-stream")
    return {"w.pth": f"{server.address}/w.pth?dl=1"}, content


@pytest.fixture(autouse=True)
def without_queries(monkeypatch):
    answer = Handler.do_GET

    def do_GET(self):
        self.path = self.path.partition("?")[0]
        answer(self)

    monkeypatch.setattr(Handler, "do_GET", do_GET)


def test_a_file_is_fetched_once_and_its_hash_recorded(server, published, own_cache):
    files, content = published
    path = fetch("model", files)
    assert path == own_cache / "model" / "w.pth" and path.read_bytes() == content
    recorded = (own_cache / "model" / "w.pth.sha256").read_text(encoding="utf-8")
    assert recorded == f"{hashlib.sha256(content).hexdigest()}  w.pth\n"
    fetch("model", files)
    assert len(server.asked) == 1
    assert {p.name for p in path.parent.iterdir()} == {"w.pth", "w.pth.sha256", ".w.pth.lock"}


def test_a_broken_connection_is_taken_up_where_it_broke(server, published):
    files, content = published
    server.cuts = [300_000, 200_000]
    assert fetch("model", files).read_bytes() == content
    starts = [asked for _, asked in server.asked]
    assert starts[0] is None and len(starts) == 3
    first, second = (int(start.removeprefix("bytes=").rstrip("-")) for start in starts[1:])
    assert 0 <= 300_000 - first < download._PIECE and 0 <= first + 200_000 - second < download._PIECE


def test_a_killed_download_goes_on_in_the_next_run(server, published, own_cache):
    files, content = published
    server.cuts = [100_000] * 4
    with pytest.raises(
        Unavailable, match=r"4 attempts; what has come is kept(.|\n)*weights=PATH.*MGMLIB_MIRROR"
    ):
        fetch("model", files)
    assert not (own_cache / "model" / "w.pth").exists()
    part = own_cache / "model" / ".w.pth.part"
    come = part.stat().st_size
    assert 4 * 65_536 <= come <= 400_000 and part.read_bytes() == content[:come]
    asked = len(server.asked)
    assert fetch("model", files).read_bytes() == content
    assert [asked for _, asked in server.asked[asked:]] == [f"bytes={come}-"]


def test_a_file_that_changed_meanwhile_begins_anew(server, published):
    files, _ = published
    server.cuts = [100_000] * 4
    with pytest.raises(Unavailable):
        fetch("model", files)
    changed = weights(1)
    server.files["/w.pth"] = (changed, "application/octet-stream")
    assert fetch("model", files).read_bytes() == changed


def test_a_weak_tag_or_a_server_without_ranges_begins_anew(server, published):
    files, content = published
    server.cuts, server.ranges = [100_000], False
    assert fetch("model", files).read_bytes() == content
    server.cuts, server.ranges, server.tag = [100_000], True, 'W/"weak"'
    server.asked.clear()
    assert fetch("other", files).read_bytes() == content
    assert server.asked == [("/w.pth", None)] * 2


def test_a_download_that_was_whole_already_is_taken(server, published, own_cache):
    files, content = published
    server.cuts = [100_000] * 4
    with pytest.raises(Unavailable):
        fetch("model", files)
    (own_cache / "model" / ".w.pth.part").write_bytes(content)
    assert fetch("model", files).read_bytes() == content


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_the_published_hash_is_checked_before_the_file_gets_its_name(algorithm, published, own_cache):
    files, content = published
    right = hashlib.new(algorithm, content).hexdigest()[:8]
    with pytest.raises(ValueError, match=rf"{algorithm} {right}.*begins with 00000000. It is another file"):
        fetch("model", files, f"{algorithm}:00000000")
    assert not (own_cache / "model" / "w.pth").exists()
    assert fetch("model", files, f"{algorithm}:{right}").is_file()


def test_a_file_that_changed_on_this_machine_is_told(published, own_cache):
    files, content = published
    path = fetch("model", files)
    path.write_bytes(weights(1))
    with pytest.raises(ValueError, match=r"w.pth: sha256 .* was recorded for it in .*w.pth.sha256.*changed"):
        fetch("model", files)
    path.unlink()
    assert fetch("model", files).read_bytes() == content


def test_another_file_under_the_same_address_is_told_from_then_on(server, published):
    files, _ = published
    path = fetch("model", files)
    path.unlink()
    server.files["/w.pth"] = (weights(1), "application/octet-stream")
    with pytest.raises(ValueError, match="does not match"):
        fetch("model", files)
    assert not path.exists()


PAGES = {
    "answers with a web page": (b"<!doctype html><p>Sign in", "text/html; charset=utf-8"),
    "gave no file of weights: it is a web page": (b"<html>Sign in</html>", "application/octet-stream"),
    "gave no file of weights: it begins with": (b"quota exceeded" * 9, "text/plain"),
    "gave no file of weights: it is empty": (b"", "application/octet-stream"),
}


@pytest.mark.parametrize("told", PAGES)
def test_an_answer_that_is_no_file_is_told(told, server, published, own_cache):
    files, content = published
    server.files["/w.pth"] = PAGES[told]
    with pytest.raises(Unavailable, match=rf"w.pth\?dl=1 could not be had: .*{told}"):
        fetch("model", files)
    assert not (own_cache / "model" / "w.pth").exists() and len(server.asked) == 1
    server.files["/w.pth"] = (content, "application/octet-stream")
    assert fetch("model", files).read_bytes() == content


def test_nothing_there_and_nobody_there_are_told(server, published):
    with pytest.raises(Unavailable, match="404"):
        fetch("model", {"x.pth": f"{server.address}/x.pth"})
    server.shutdown()
    server.server_close()
    with pytest.raises(Unavailable, match=r"could not be had(.|\n)*weights=PATH"):
        fetch("model", published[0])


def test_a_mirror_folder_is_read_in_place(server, published, tmp_path, monkeypatch, own_cache):
    files, content = published
    there = tmp_path / "mirror" / "model" / "w.pth"
    there.parent.mkdir(parents=True)
    there.write_bytes(content)
    there.parent.chmod(0o555)  # as on a cluster
    monkeypatch.setenv("MGMLIB_MIRROR", str(tmp_path / "mirror"))
    assert fetch("model", files) == there and not server.asked
    with pytest.raises(ValueError, match="begins with 00000000"):
        (own_cache / "model" / "w.pth.sha256").unlink()
        fetch("model", files, "md5:00000000")
    fetch("model", files)
    there.write_bytes(weights(1))
    with pytest.raises(ValueError, match="the file has changed"):
        fetch("model", files)
    assert fetch("elsewhere", files) == own_cache / "elsewhere" / "w.pth"  # what a mirror lacks is fetched


def test_a_mirror_address_stands_for_the_published_one(server, monkeypatch):
    content = weights(0)
    server.files["/mirror/model/w.pth"] = (content, "application/octet-stream")
    monkeypatch.setenv("MGMLIB_MIRROR", f"{server.address}/mirror/")
    path = fetch("model", {"w.pth": "https://nowhere.invalid/w.pth"})
    assert path.read_bytes() == content


def test_a_checkpoint_of_two_files_is_fetched_whole(server):
    from mgmlib.models import PUBLISHED

    row = PUBLISHED["simclr-v2"]
    files = {file: f"{server.address}/{file}" for file in row.files}
    assert list(files) == ["model.ckpt-250228.index", "model.ckpt-250228.data-00000-of-00001"]
    for file in files:
        server.files[f"/{file}"] = (file.encode() * 100, "application/octet-stream")
    path = fetch("simclr-v2", files)
    assert path.name == "model.ckpt-250228.index"
    assert path.with_name("model.ckpt-250228.data-00000-of-00001").is_file()


def _fetch_in_another(cache, files, queue):
    os.environ["MGMLIB_CACHE"] = cache
    queue.put(hashlib.md5(fetch("model", files).read_bytes()).hexdigest())


def test_several_processes_at_once_end_with_one_sound_file(server, published, tmp_path):
    files, content = published
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    others = [
        context.Process(target=_fetch_in_another, args=(str(tmp_path / "cache"), files, queue))
        for _ in range(3)
    ]
    for process in others:
        process.start()
    found = [queue.get(timeout=60) for _ in others]
    for process in others:
        process.join()
    assert set(found) == {hashlib.md5(content).hexdigest()}


def test_load_model_fetches_checks_and_loads(server, monkeypatch, tmp_path):
    """From the address to the encoder: the one test that goes the user's whole way."""
    from dataclasses import replace

    from mgmlib.models import PUBLISHED
    from mgmlib.models.synthetic import write_synthetic

    path, _ = write_synthetic("swav", tmp_path / "source")
    server.files["/swav.pth"] = (path.read_bytes(), "application/octet-stream")
    monkeypatch.setitem(PUBLISHED, "swav", replace(PUBLISHED["swav"], url=f"{server.address}/swav.pth"))
    encoder = mgm.load_model("swav", input_size=64)
    assert encoder.meta["weights"] == "pretrained" and len(server.asked) == 1
    assert encoder.meta["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert encoder.digest == mgm.load_model("swav", weights=path, input_size=64).digest
    assert mgm.load_model("swav", input_size=64).digest == encoder.digest and len(server.asked) == 1
