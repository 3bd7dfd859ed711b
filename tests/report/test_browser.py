"""The page in headless Chromium: `make browser`. Skipped where Chromium or Playwright's Python package is not there."""

import shutil
from collections.abc import Iterator
from importlib.resources import files
from math import hypot
from pathlib import Path
from typing import Any

import pytest

from bdpo.report.page import write_report

playwright = pytest.importorskip(
    "playwright.sync_api", reason="Playwright is not installed: pip install -e '.[browser]'"
)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Debian's chromium is not here: apt-get install chromium")
LIGHT, DARK = "rgb(27, 31, 36)", "rgb(232, 234, 237)"
SHOWN = (
    "e => { const box = e.getBoundingClientRect(); return box.width > 20 && getComputedStyle(e).clipPath == 'none' }"
)
"""Whether what a mark tells is to be seen: else it is there for screen readers alone."""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser of an empty profile."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(trained: list[Path], evaluation: Path, hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_report(trained, folder / "report.html", evaluation=evaluation)
    write_report(trained, folder / "hostile.html", evaluation=hostile)
    return folder


def opened(chromium: Any, path: Path, width: int = 1280, **how: Any) -> Any:
    """The page in a window, which notes what it asks the network for and what the console says."""
    window = chromium.new_context(viewport={"width": width, "height": 900}, **how).new_page()
    window.set_default_timeout(10_000)
    window.asked, window.told = [], []
    window.on("request", lambda request: window.asked.append(request.url))
    window.on("console", lambda message: window.told.append(message.text))
    window.on("pageerror", lambda error: window.told.append(str(error)))
    window.goto(path.as_uri())
    return window


@pytest.fixture(scope="module")
def report(chromium: Any, pages: Path) -> Any:
    return opened(chromium, pages / "report.html")


def shown(window: Any) -> int:
    return window.locator(".flip").evaluate_all("all => all.filter(flip => flip.checkVisibility()).length")


@pytest.mark.parametrize("name", ["report.html", "hostile.html"])
def test_no_console_error_and_no_request_but_for_the_page(chromium: Any, pages: Path, name: str) -> None:
    window = opened(chromium, pages / name)
    assert window.told == [] and window.asked == [(pages / name).as_uri()]


@pytest.mark.parametrize(("scheme", "ink"), [("light", LIGHT), ("dark", DARK)])
def test_the_figures_are_drawn_in_the_colours_of_the_scheme(chromium: Any, pages: Path, scheme: str, ink: str) -> None:
    window = opened(chromium, pages / "report.html", color_scheme=scheme)
    sizes = [svg.bounding_box() for svg in window.locator("figure svg").all()]
    assert len(sizes) == 12 and min(min(box["width"], box["height"]) for box in sizes) > 100
    assert window.locator("figure svg text").first.evaluate("e => getComputedStyle(e).fill") == ink


@pytest.mark.parametrize("unfolded", [False, True])
def test_it_fits_a_telephone(chromium: Any, pages: Path, unfolded: bool) -> None:
    window = opened(chromium, pages / "report.html", width=390)
    if unfolded:
        window.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    assert window.evaluate("document.documentElement.scrollWidth") == 390
    too_wide = window.locator(".cards td").evaluate_all("all => all.filter(e => e.getBoundingClientRect().right > 390)")
    assert too_wide == []


def test_on_a_telephone_wide_tables_scroll_by_keyboard(chromium: Any, pages: Path) -> None:
    window = opened(chromium, pages / "report.html", width=390)
    wide = [box for box in window.locator(".scroll").all() if box.evaluate("e => e.scrollWidth > e.clientWidth")]
    assert all(box.get_attribute("tabindex") == "0" and box.get_attribute("aria-label") for box in wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(chromium: Any, pages: Path, scheme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-core is not here: pip install -e '.[browser]'")
    window = opened(chromium, pages / "report.html", color_scheme=scheme, bypass_csp=True)
    window.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true })")
    for many in (".flip:nth-of-type(n + 3)", ".pair:nth-of-type(n + 3)", ".mark:nth-of-type(n + 6)"):  # alike, and slow
        window.locator(many).evaluate_all("all => all.forEach(one => one.remove())")
    window.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    found = window.evaluate("axe.run({ resultTypes: ['violations'] })")
    assert [(one["id"], one["impact"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 30


# --- figures ------------------------------------------------------------------------------------------------------
def test_a_place_of_a_figure_tells_what_it_is_under_the_pointer(report: Any) -> None:
    bar = report.locator("#replies .mark").filter(has_text="DPO, harmful prompts: refusal 75.0 %").first
    assert not bar.locator("span").evaluate(SHOWN)
    bar.hover()
    assert bar.locator("span").evaluate(SHOWN)
    report.mouse.move(0, 0)
    assert not bar.locator("span").evaluate(SHOWN)


def test_the_arrow_keys_walk_through_a_figure_and_lead_to_the_texts(report: Any) -> None:
    marks = report.locator("#data figure").first.locator(".mark")
    assert marks.count() == 60, "one a training pair"
    marks.nth(0).locator("input").focus()
    assert marks.nth(0).locator("span").evaluate(SHOWN)
    report.keyboard.press("ArrowRight")
    assert marks.nth(1).locator("span").evaluate(SHOWN) and not marks.nth(0).locator("span").evaluate(SHOWN)
    report.keyboard.press("Tab")
    assert report.evaluate("document.activeElement.textContent") == "more on it"
    where = report.evaluate("document.activeElement.hash")
    pair = report.locator(where)
    assert not pair.is_visible(), "folded behind the warning"
    report.keyboard.press("Enter")
    assert pair.is_visible() and pair.bounding_box()["y"] < 900


def test_a_legend_shows_a_series_alone(report: Any) -> None:
    figure = report.locator("#trade figure")
    assert [key.inner_text() for key in figure.locator(".key").all()] == ["base", "DPO", "B-DPO"]
    opacity = "all => [...new Set(all.map(e => getComputedStyle(e).opacity))]"
    assert figure.locator(".series").evaluate_all(opacity) == ["1"]
    figure.locator(".key input").nth(1).focus()
    report.keyboard.press("Space")
    assert figure.locator(".s1").evaluate_all(opacity) == ["1"]
    assert figure.locator(".s0, .s2").evaluate_all(opacity) == ["0.1"]
    report.keyboard.press("Space")
    assert figure.locator(".series").evaluate_all(opacity) == ["1"]


@pytest.mark.parametrize(("section", "points"), [("trade", 3), ("data", 60), ("categories", 30)])
def test_the_marks_lie_on_what_they_tell_of(report: Any, section: str, points: int) -> None:
    """In every size of window: on the points that matplotlib drew."""
    figure = report.locator(f"#{section} figure").first
    centres = "all => all.map(e => e.getBoundingClientRect()).map(b => [b.x + b.width / 2, b.y + b.height / 2])"
    drawn = figure.locator(".series use").evaluate_all(centres)
    marks = figure.locator(".mark").evaluate_all(centres)
    assert len(marks) == points
    away = [min(hypot(x - u, y - v) for u, v in drawn) for x, y in marks]
    assert max(away) < 1.5  # pixels


# --- changed replies ----------------------------------------------------------------------------------------------
def test_the_filters_work_by_mouse(chromium: Any, pages: Path) -> None:
    window = opened(chromium, pages / "report.html")
    assert shown(window) == 0, "folded behind the warning"
    window.locator("#changed summary").click()
    assert shown(window) == 145
    window.locator("#kind-refused-harmless").click()
    assert shown(window) == 31
    window.locator("#kind-all").click()
    assert shown(window) == 145


def test_the_filters_work_by_keyboard(chromium: Any, pages: Path) -> None:
    window = opened(chromium, pages / "report.html")
    window.locator("#changed summary").press("Enter")
    assert shown(window) == 145
    window.keyboard.press("Tab")
    assert window.evaluate("document.activeElement.id") == "kind-all"
    window.keyboard.press("ArrowDown")
    assert shown(window) == 114
    window.keyboard.press("ArrowDown")
    assert shown(window) == 31


def test_hostile_text_does_nothing(chromium: Any, pages: Path) -> None:
    window = opened(chromium, pages / "hostile.html")
    window.locator("#changed summary").click()
    assert window.title().startswith("bdpo report") and shown(window) == 90
    prompt = window.locator(".flip .prompt").first.inner_text()
    assert "<script>document.title='taken'</script></script><img src=x" in prompt and "\\u202egnp.exe" in prompt
    assert window.locator("script, img, b, i").count() == 0 and window.told == []


# --- print --------------------------------------------------------------------------------------------------------
def test_it_prints_dark_on_white_without_what_is_for_the_screen(chromium: Any, pages: Path, tmp_path: Path) -> None:
    window = opened(chromium, pages / "report.html", color_scheme="dark")
    window.emulate_media(media="print")
    assert window.locator("body").evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
    assert window.locator("figure svg text").first.evaluate("e => getComputedStyle(e).fill") == LIGHT
    gone = window.locator("nav, .marks, .keys, .skip, details.numbers")
    assert gone.count() > 12 and not any(one.is_visible() for one in gone.all())
    window.pdf(path=tmp_path / "report.pdf", format="A4")
    content = (tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF") and 4 <= content.count(b"/Type /Page\n") <= 12
