"""The page in a browser: nothing loaded, nothing said on the console, readable on a phone, in the dark, in print."""

import base64
import json
import re
import shutil

import pytest

from tests.report_cases import EVIL, FIGURES, LONG, whole_report

pytest.importorskip("matplotlib", reason="reports are drawn with Matplotlib, the extra 'plot'")
webdriver = pytest.importorskip("selenium.webdriver", reason="a browser is driven by Selenium, which is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.backend_independent,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="no Chromium, or no chromedriver, is installed"),
]
PHONE, DESK = 360, 1280


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=[(), (LONG, *EVIL)], ids=["plain", "evil"])
def page(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    whole_report(request.param).save(path)
    return path


@pytest.fixture
def shown(browser, page):
    """Shows the page so wide, light or dark; returns the browser and what it has asked for meanwhile."""

    def show(width, dark=False, opened=True):
        browser.get_log("performance")
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": features})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(page.as_uri())
        if opened:
            browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
        events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        requested = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return browser, requested

    return show


def test_it_loads_nothing_and_says_nothing(shown, page):
    browser, requested = shown(DESK)
    assert page.as_uri() in requested
    assert [url for url in requested if not url.startswith(("data:image/png", page.as_uri()))] == []
    assert browser.get_log("browser") == []
    assert "times smaller" in browser.title  # no script has changed it


def test_every_figure_is_there(shown):
    browser, _ = shown(DESK)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg, img.mask')].map(each => {"
        "const box = each.getBoundingClientRect();"
        "return [each.getAttribute('aria-label') || each.alt, box.width, box.height, each.complete ?? true,"
        "each.naturalWidth ?? 1]})"
    )
    for figure in FIGURES:
        assert any(figure in label for label, *_ in sizes), figure
    for label, width, height, complete, natural in sizes:
        assert width > 100, label
        assert height > 30, label
        assert complete, label
        assert natural > 0, label


@pytest.mark.parametrize("width", [PHONE, 768, DESK])
def test_nothing_but_tables_scrolls_sideways(shown, width):
    browser, _ = shown(width)
    assert browser.execute_script("return document.documentElement.scrollWidth") == width
    wide = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll, pre, svg'))"
        ".filter(each => each.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(each => each.outerHTML.slice(0, 80))"
    )
    assert wide == []


def test_letters_can_be_read_on_a_phone(shown):
    browser, _ = shown(PHONE)
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('svg text')].map(each => "
        "parseFloat(getComputedStyle(each).fontSize) * Math.hypot(each.getScreenCTM().a, each.getScreenCTM().b))"
    )
    assert min(sizes) >= 8  # CSS pixels
    others = browser.execute_script(
        "return [...document.querySelectorAll('p, td, th, li, dd, dt, code, summary, figcaption')]"
        ".map(each => parseFloat(getComputedStyle(each).fontSize))"
    )
    assert min(others) >= 11


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_its_background(shown, dark):
    browser, _ = shown(DESK, dark)
    paper = luminance(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
    assert paper < 0.05 if dark else paper > 0.9
    colours = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, p, td, th, summary, svg text')].map(each => {"
        "const style = getComputedStyle(each); return each.closest('svg') ? style.fill : style.color})"
    )
    assert min(contrast(luminance(colour), paper) for colour in set(colours)) >= 4.5  # WCAG 2.2, level AA


def luminance(colour):
    """The relative luminance of WCAG 2.2."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_print_shows_what_is_folded_on_light_paper(shown):
    browser, _ = shown(DESK, dark=True, opened=False)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = browser.execute_script(
        "return [...document.querySelectorAll('details > *')].filter(each => !each.getClientRects().length || "
        "!each.checkVisibility({contentVisibilityAuto: true})).map(each => each.outerHTML.slice(0, 80))"
    )
    assert browser.execute_script("return document.querySelectorAll('details:not([open])').length") > 0
    assert hidden == []
    paper = browser.execute_script("return getComputedStyle(document.documentElement).getPropertyValue('--paper')")
    assert paper == "#ffffff"
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"])[:5] == b"%PDF-"
