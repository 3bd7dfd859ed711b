"""The page in headless Chromium: `make browser`. Skipped where Chromium or selenium is not there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bdpo.report.page import write_report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[browser]'")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Debian's chromium and chromium-driver are not here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(trained: list[Path], evaluation: Path, hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_report(trained, folder / "report.html", evaluation=evaluation)
    write_report(trained, folder / "hostile.html", evaluation=hostile)
    return folder


def opened(browser: Any, page: Path) -> Any:
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(page.as_uri())
    return browser


def shown(browser: Any) -> int:
    return sum(flip.is_displayed() for flip in browser.find_elements("css selector", ".flip"))


@pytest.mark.parametrize("name", ["report.html", "hostile.html"])
def test_no_console_error_and_no_request_but_for_the_page(browser: Any, pages: Path, name: str) -> None:
    opened(browser, pages / name)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert set(sent) <= {(pages / name).as_uri()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_figures_are_drawn_in_the_colours_of_the_scheme(browser: Any, pages: Path, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opened(browser, pages / "report.html")
    sizes = [(svg.size["width"], svg.size["height"]) for svg in browser.find_elements("css selector", "figure svg")]
    assert len(sizes) == 12 and min(min(size) for size in sizes) > 100
    text = browser.find_element("css selector", "figure svg text")
    assert text.value_of_css_property("fill") == {"light": "rgb(27, 31, 36)", "dark": "rgb(232, 234, 237)"}[scheme]


def test_it_fits_a_telephone(browser: Any, pages: Path) -> None:
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        opened(browser, pages / "report.html")
        assert browser.execute_script("return document.documentElement.scrollWidth") == 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_filters_work_by_mouse(browser: Any, pages: Path) -> None:
    opened(browser, pages / "report.html")
    assert shown(browser) == 0, "folded behind the warning"
    browser.find_element("css selector", "#changed summary").click()
    assert shown(browser) == 145
    browser.find_element("id", "kind-refused-harmless").click()
    assert shown(browser) == 31
    browser.find_element("id", "kind-all").click()
    assert shown(browser) == 145


def test_the_filters_work_by_keyboard(browser: Any, pages: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, pages / "report.html")
    browser.find_element("css selector", "#changed summary").send_keys(Keys.ENTER)
    assert shown(browser) == 145
    browser.switch_to.active_element.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("id") == "kind-all"
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert shown(browser) == 114
    browser.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert shown(browser) == 31


def test_hostile_text_does_nothing(browser: Any, pages: Path) -> None:
    opened(browser, pages / "hostile.html")
    browser.find_element("css selector", "#changed summary").click()
    assert browser.title.startswith("bdpo report") and shown(browser) == 90
    reply = browser.find_element("css selector", ".flip .prompt").text
    assert "<script>document.title='taken'</script></script><img src=x" in reply and "\\u202egnp.exe" in reply
