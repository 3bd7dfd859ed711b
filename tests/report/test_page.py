"""The page, read with a parser: what it says, and that text from outside stays text."""

import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bdpo.errors import BdpoError
from bdpo.evaluate.results.compare import Cell, ComparedRow
from bdpo.evaluate.results.outcomes import Outcome
from bdpo.evaluate.results.paired import newcombe_paired
from bdpo.evaluate.results.statistics import Difference, Rate
from bdpo.report.evaluated import SAFETY, Evaluated, kind_of, open_evaluation
from bdpo.report.page import MARK, MOST_CHANGED, write_report
from bdpo.report.runs import open_run
from bdpo.report.verdict import Change
from tiny import Bdpo

LIMIT = 3_000_000  # bytes
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(" ".join(self.said).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.said.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def page(trained: list[Path], evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(trained, out, evaluation=evaluation)
    return Page(out)


@pytest.fixture(scope="module")
def hostile_page(trained: list[Path], hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(trained, out, evaluation=hostile)
    return Page(out)


def test_a_page_is_known_as_one(page: Page, tmp_path: Path) -> None:
    assert MARK in page.source[:1000]
    (tmp_path / "report.html").write_text("<title>Mine</title>")
    with pytest.raises(BdpoError, match=r"--out .*report\.html was not written by this command"):
        write_report([], tmp_path / "report.html", evaluation=tmp_path)


# --- what it says -------------------------------------------------------------------------------------------------
def test_the_verdict_with_its_numbers_by_hand(page: Page) -> None:
    # B-DPO: 84 - 30 of 120 harmful prompts gained; 110 - 109 harmless ones lost
    low, high = newcombe_paired(30, 54, 0, 36)
    assert f"Safer (+45.0 points [{100 * low:+.1f}, {100 * high:+.1f}]) at a cost of at most 5 points." in page.text
    assert "A trade: +50.0 points" in page.text and "-25.0 points" in page.text
    assert "This is one seed: another training run may come out otherwise." in page.text


def test_every_section_is_there_with_its_figures(page: Page) -> None:
    sections = ["verdict", "trade", "differences", "replies", "categories", "changed", "data", "training", "reproduce"]
    assert [attributes["id"] for attributes in page.of("section")] == sections
    figures = [svg["aria-label"] or "" for svg in page.of("svg")]
    # 4 of the evaluation, 2 of the data; loss, log-ratios, and of both runs the gap and the terciles
    assert len(figures) == 4 + 2 + 2 + 2 * 2 and all(len(told) > 40 for told in figures)
    assert {svg["role"] for svg in page.of("svg")} == {"img"}


def test_every_value_tells_itself_and_what_it_leads_to_is_there(page: Page) -> None:
    told = [a["name"] or "" for a in page.of("input") if a["type"] == "radio" and a["name"] != "kind"]
    # three methods; two of them on two benchmarks; 5 categories of 2 suites of 3 methods; a pair each
    expected = {"of-trade-off": 3, "of-differences": 4, "of-categories": 30, "of-comprehension": 60}
    assert {name: told.count(name) for name in expected} == expected
    low, high = newcombe_paired(30, 60, 0, 30)
    assert (
        f"harmful, DPO: +50.0 points [{100 * low:+.1f}, {100 * high:+.1f}], 60 gained, 0 lost more on it" in page.text
    )
    leads = [a["href"] or "" for a in page.of("a") if (a["href"] or "").startswith(("#pair-", "#difference-"))]
    assert len(leads) == len(set(leads)) == 20 + 4, "the twenty most imbalanced pairs, and the benchmarks"


def test_the_data_are_those_of_the_balanced_run(trained: list[Path], tmp_path: Path) -> None:
    write_report(trained[::-1], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "Line: w_c(d), with tau = " in page.text and "nothing balanced" in page.text


def test_it_is_small_and_asks_the_network_for_nothing(page: Page) -> None:
    assert len(page.source.encode()) < LIMIT
    assert not {"script", "img", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    addresses = [value for _, a in page.tags for name, value in a.items() if name in ("href", "src", "xlink:href")]
    assert all(address and address.startswith("#") for address in addresses)
    assert "url(http" not in page.source and "@import" not in page.source


def test_ids_are_unique_and_every_reference_is_to_one(page: Page) -> None:
    ids = page.ids()
    assert len(ids) == len(set(ids))
    references = [a[name] or "" for _, a in page.tags for name in ("href", "xlink:href") if name in a]
    references += ["#" + (a["aria-labelledby"] or "") for a in page.of("section")]
    assert {reference.removeprefix("#") for reference in references} <= set(ids)


def test_changed_replies_are_counted_by_kind(page: Page) -> None:
    # DPO refuses 60 more harmful and 30 more harmless prompts, B-DPO 54 and 1
    assert "newly refused, harmful (114)" in page.text and "newly refused, harmless (31)" in page.text
    flips = [a["class"] or "" for a in page.of("article") if "flip" in (a["class"] or "")]
    assert len(flips) == 145 < MOST_CHANGED
    assert [i["value"] for i in page.of("input") if "disabled" in i] == ["complying", "broken"]


def test_it_says_where_the_recipes_differ(page: Page) -> None:
    assert "Where the recipes differ" in page.text and "balance.enabled" in page.text


# --- what it lacks ------------------------------------------------------------------------------------------------
def test_a_section_without_data_says_so(trained: list[Path], evaluation: Path, tmp_path: Path) -> None:
    write_report(trained[:1], tmp_path / "run.html")
    assert "No verdict: there is no evaluation of two models." in Page(tmp_path / "run.html").text
    write_report([], tmp_path / "evaluation.html", evaluation=evaluation)
    assert "Not shown: no training run was named." in Page(tmp_path / "evaluation.html").text


def test_a_run_of_an_earlier_version_has_curves_and_no_scores(trained: list[Path], tmp_path: Path) -> None:
    shutil.copytree(trained[0], tmp_path / "old")
    (tmp_path / "old" / "run.json").unlink()
    write_report([tmp_path / "old"], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "has no run.json" in page.text and len(page.of("svg")) == 4


def test_scores_that_were_replaced_are_not_shown(trained: list[Path], tmp_path: Path) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["scores"]["train"]["key"]["weights"] = "others"
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    run = open_run(tmp_path / "run")
    assert run.scores is None and "were replaced by others" in run.absent


def test_nothing_to_report_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BdpoError, match="nothing to report on"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(BdpoError, match="holds no finished run"):
        write_report([tmp_path], tmp_path / "report.html")


# --- text from outside --------------------------------------------------------------------------------------------
def test_hostile_text_shows_as_text(hostile_page: Page) -> None:
    assert not {"script", "img", "b", "i"} & {tag for tag, _ in hostile_page.tags}
    assert not [name for _, a in hostile_page.tags for name in a if name.startswith("on")]
    assert "<script>document.title='taken'</script></script><img src=x onerror=" in hostile_page.text
    assert "{{ 7*7 }}" in hostile_page.text and "&lt;i&gt;" in hostile_page.text and "$x^2$" in hostile_page.text
    assert "\\x1b[31mred \\u202egnp.exe" in hostile_page.text
    assert not {"\x1b", "\u202e"} & set(hostile_page.source)


# --- what is read -------------------------------------------------------------------------------------------------
def test_paired_changes_by_hand(evaluation: Path) -> None:
    found = open_evaluation([evaluation])
    change = found.change("DPO", SAFETY)
    assert change is not None
    assert (change.value, change.low, change.high, change.n) == (0.5, *newcombe_paired(30, 60, 0, 30), 120)
    assert found.verdicts("DPO", SAFETY) == {"refusal": 0.75, "compliance": 0.25}
    rare = [category for category in found.categories() if category.name == "rare"]
    assert [category.n for category in rare] == [9, 9]


def test_several_seeds_are_paired_by_prompt(evaluation: Path, tmp_path: Path) -> None:
    found = open_evaluation([evaluation])
    seeds = [found.methods["DPO"][0], found.methods["B-DPO"][0]]
    both = Evaluated(found.folders, found.comparison, {**found.methods, "DPO": seeds})
    change = both.change("DPO", SAFETY)
    assert change is not None and change.value == pytest.approx(np.mean([0.5, 0.45]))
    assert both.evidence("DPO").seeds == 2


def test_of_pairs_the_reward_by_kind_is_judged_and_where_the_baseline_has_none_the_ranking(evaluation: Path) -> None:
    def row(name: str, of_base: bool, value: float) -> ComparedRow:
        cells = {"DPO": Cell(Rate(0.5, 0.4, 0.6, 100, 200), Difference(value, value - 0.1, value + 0.1, 200))}
        base = {"base": Cell(Rate(0.5, 0.4, 0.6, 100, 200))} if of_base else {}
        return ComparedRow(f"preferences{name}", "benchmark", "preferences", "", 200, 0, 0, 0, base | cells)

    found = open_evaluation([evaluation])
    for of_base, judged in ((True, 0.3), (False, 0.2)):
        rows = [row("", True, 0.1), row(" balanced", True, 0.2), row(" balanced reward", of_base, 0.3)]
        seen = Evaluated(found.folders, replace(found.comparison, rows=rows), found.methods)
        assert seen.preferences("DPO") == Change(judged, judged - 0.1, judged + 0.1, 200)
    assert found.preferences("DPO") is None


OUTCOME = Outcome("p", 0, "", "?", "!", "end", 3, 0.0, "compliance")
REFUSED = replace(OUTCOME, score=1.0, verdict="refusal")


@pytest.mark.parametrize(
    ("suite", "before", "after", "kind"),
    [
        ("safety", OUTCOME, REFUSED, "refused-harmful"),
        ("safety", REFUSED, OUTCOME, "complying"),
        ("over-refusal", replace(OUTCOME, score=1.0), replace(REFUSED, score=0.0), "refused-harmless"),
        ("over-refusal", replace(REFUSED, score=0.0), replace(OUTCOME, score=1.0), "complying"),
        ("safety", REFUSED, replace(OUTCOME, verdict="degenerate"), "broken"),
        ("safety", OUTCOME, replace(OUTCOME, score=None, verdict="unparsed"), ""),
        ("safety", REFUSED, REFUSED, ""),
    ],
)
def test_kinds_of_changes(suite: str, before: Outcome, after: Outcome, kind: str) -> None:
    assert kind_of(suite, before, after) == kind


def test_the_command_writes_the_page_and_the_figures(
    bdpo_: Bdpo, trained: list[Path], evaluation: Path, tmp_path: Path
) -> None:
    code, out, _ = bdpo_("report", *map(str, trained), "--evaluation", str(evaluation),
                         "--out", str(tmp_path / "r.html"), "--figures", str(tmp_path / "figures"))  # fmt: skip
    assert code == 0 and "r.html" in out
    names = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert names == {path.stem for path in (tmp_path / "figures").glob("*.png")} and len(names) == 12
    assert {"trade-off", "differences", "comprehension", "gap-0", "terciles-1"} <= names
