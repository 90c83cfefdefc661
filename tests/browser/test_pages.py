"""The built book as a reader meets it: whole, in both themes, on a desk and on a phone, without a network."""

import re

DESK, PHONE = 1280, 390


def switch_theme(browser, theme):
    """Press the theme button, as a reader does, until the wanted theme is on."""
    for _ in range(4):
        if browser.execute_script("return document.documentElement.dataset.theme") == theme:
            return
        browser.execute_script("document.querySelector('.theme-switch-button').click()")
    raise AssertionError(f"the theme button never led to the {theme} theme")


def brightness(browser, selector):
    """Mean of red, green and blue (0 to 255) of an element's own background; None where it has none."""
    colour = browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor", selector
    )
    red, green, blue, *alpha = (float(part) for part in re.findall(r"[\d.]+", colour))
    return None if alpha == [0.0] else (red + green + blue) / 3


def test_page_is_whole(show, page):
    """No error on the console, every image there, every formula typeset."""
    browser = show(page, DESK)
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    ours = [message for message in told if "127.0.0.1" in message.split()[0]]
    assert not ours, f"console errors on {page}: {ours}"
    broken = browser.execute_script(
        "return [...document.images].filter(image => image.naturalWidth === 0).map(image => image.src)"
    )
    assert not broken, f"images that did not load on {page}: {broken}"
    formulas, typeset, wrong = browser.execute_script("""
        const count = selector => document.querySelectorAll(selector).length;
        return [count('.bd-article .math'), count('.bd-article mjx-container'), count('mjx-merror')];
    """)
    assert wrong == 0, f"{wrong} formulas on {page} do not typeset"
    assert typeset >= formulas, f"{formulas - typeset} of {formulas} formulas on {page} are not typeset"


def test_chapter_shows_figures_and_offers_its_notebook(show, chapter, book):
    """A chapter has at least one figure, and its download button leads to a real notebook."""
    browser = show(chapter, DESK)
    count = "return document.querySelectorAll('.bd-article .cell_output img').length"
    assert browser.execute_script(count) > 0, f"{chapter} shows no figure"
    button = "return document.querySelector('a[href$=\".ipynb\"]')?.getAttribute('href')"
    link = browser.execute_script(button)
    assert link, f"{chapter} has no download button"
    assert (book / chapter).parent.joinpath(link).resolve().is_file(), f"{chapter} offers no notebook: {link}"


def test_page_in_both_themes(show, page, screenshot):
    """The theme button turns the page dark and back; figures keep their white ground."""
    browser = show(page, DESK)
    switch_theme(browser, "light")
    assert brightness(browser, "body") > 200
    screenshot(page, "light")
    switch_theme(browser, "dark")
    assert brightness(browser, "body") < 80
    if browser.execute_script("return !!document.querySelector('.cell_output img')"):
        assert brightness(browser, ".cell_output img") == 255, (
            f"figures of {page} have no ground in the dark theme"
        )
    screenshot(page, "dark")
    switch_theme(browser, "light")


def test_page_fits_a_phone(show, page, screenshot):
    """Nothing sticks out of a page 390 pixels wide."""
    browser = show(page, PHONE)
    screenshot(page, "phone")
    width, culprits = browser.execute_script("""
        const page = document.documentElement;
        const clips = node => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(node).overflowX);
        const scrolls = node => node && node !== page && (clips(node) || scrolls(node.parentElement));
        const sticksOut = node => node.getBoundingClientRect().right > innerWidth + 1;
        const wide = [...document.querySelectorAll('.bd-article *')]
            .filter(node => sticksOut(node) && !scrolls(node.parentElement));
        return [page.scrollWidth, wide.slice(0, 3).map(node => node.outerHTML.slice(0, 120))];
    """)
    assert width <= PHONE + 1, f"{page} is {width} px wide on a {PHONE} px screen: {culprits}"
    assert not culprits, f"{page} has parts that stick out: {culprits}"


def test_search_finds_the_introduction(show):
    """The search page answers from the book alone."""
    browser = show("search.html?q=embedding", DESK)
    browser.execute_async_script("""
        const done = arguments[0], start = Date.now();
        const look = () => document.querySelector('#search-results li') || Date.now() - start > 10000
            ? done() : setTimeout(look, 100);
        look();
    """)
    links = browser.execute_script(
        "return [...document.querySelectorAll('#search-results li a')].map(link => link.href)"
    )
    assert any("book/" in link or "notebooks/" in link for link in links), f"search found only {links}"
