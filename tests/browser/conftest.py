"""A headless Chromium with no network but this machine, and the built book served to it."""

import base64
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest
from selenium import webdriver

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "_build" / "html"
SCREENSHOTS = ROOT / "_build" / "screenshots"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",  # the book must look right offline
)


def pages():
    """Every page of the table of contents that was built, by its path below the book's root."""
    folders = (BOOK / "book", BOOK / "notebooks")
    return sorted(str(path.relative_to(BOOK)) for folder in folders for path in folder.glob("*.html"))


def pytest_generate_tests(metafunc):
    """A test that takes a `page` runs once for each; one that takes a `chapter`, for each notebook's page."""
    built = pages()
    assert built, f"no page under {BOOK}; build the book first (make html)"
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", built)
    if "chapter" in metafunc.fixturenames:
        metafunc.parametrize("chapter", [page for page in built if page.startswith("notebooks")])


@pytest.fixture(scope="session")
def address():
    """Where the built book is served on this machine."""
    handler = functools.partial(QuietHandler, directory=BOOK)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each request."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Chromium with an empty profile, its console messages kept."""
    options = webdriver.ChromeOptions()
    options.binary_location = found("chromium", "chromium-browser", "google-chrome")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    os.environ["SE_OFFLINE"] = "true"  # selenium looks for no driver elsewhere
    driver = webdriver.Chrome(options, webdriver.ChromeService(found("chromedriver")))
    driver.set_page_load_timeout(120)
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def found(*names):
    """The first of these programs that the machine has."""
    for name in names:
        if path := shutil.which(name):
            return path
    pytest.fail(f"none of {', '.join(names)} is installed (Debian: apt-get install chromium chromium-driver)")


def resize(browser, width, height):
    """Give the page a screen of this size, in pixels."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def show(browser, address):
    """A function that opens a page at a width, typeset and with every image loaded."""

    def opened(page, width):
        resize(browser, width, 900)
        browser.get_log("browser")  # forget what earlier pages said
        browser.get(f"{address}/{page}")
        browser.execute_async_script("""
            const done = arguments[0];
            document.querySelectorAll('img').forEach(image => { image.loading = 'eager'; });
            const loaded = [...document.images].map(image => image.decode().catch(() => null));
            const typeset = window.MathJax && MathJax.startup ? MathJax.startup.promise : null;
            Promise.all([...loaded, typeset, document.fonts.ready]).then(() => done());
        """)
        return browser

    return opened


@pytest.fixture
def screenshot(browser):
    """A function that keeps the whole page as a PNG under _build/screenshots/."""

    def kept(page, kind):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        width, height = browser.execute_script("return [innerWidth, document.documentElement.scrollHeight]")
        resize(browser, width, min(height, 16000))
        shot = browser.execute_cdp_cmd("Page.captureScreenshot", {})
        resize(browser, width, 900)
        name = page.removesuffix(".html").replace("/", "-")
        SCREENSHOTS.joinpath(f"{name}--{kind}.png").write_bytes(base64.b64decode(shot["data"]))

    return kept


@pytest.fixture
def book():
    """The folder of the built book."""
    return BOOK
