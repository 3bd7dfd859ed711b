"""The table of scores, as it is printed on a narrow terminal."""

import io

from rich.console import Console

from bdpo.cli.tables import render_summary
from bdpo.score.summary import Correlation, GroupSummary, ScoreSummary


def _printed(render, *what):
    out = io.StringIO()
    render(*what, Console(file=out, width=80))
    return out.getvalue()


def test_the_scores_fit_80_columns_with_every_number_whole():
    groups = [GroupSummary(name, 14400, 0.63, 0.65, -0.03, 0.7, 0.54) for name in ("all pairs", "a" * 40)]
    printed = _printed(render_summary, ScoreSummary(groups, [("a", 1.2)], 0.06, (0.834, 1.166)))
    rows = [line.split() for line in printed.splitlines() if "14400" in line]
    assert [row[-11::2] for row in rows] == [["14400", "0.63", "0.65", "-0.03", "0.70", "54%"]] * 2
    assert max(map(len, printed.splitlines())) <= 80 and "r better" in printed
    assert "mean weights are 0.83 chosen and 1.17 rejected" in " ".join(printed.split())
    assert "CHES" not in printed


def test_how_the_similarity_goes_with_the_imbalance_is_printed():
    similar = (Correlation(-0.114, -0.3, 0.081), Correlation(0.25, 0.0612, 0.43))
    groups = [GroupSummary("all pairs", 144, 0.63, 0.65, -0.03, 0.7, 0.54)]
    printed = _printed(render_summary, ScoreSummary(groups, [("a", 1.2)], 0.06, (0.834, 1.166), similar))
    assert (
        "CHES with imbalance (Spearman, 95 %): -0.11 [-0.30, +0.08]; length-normalised +0.25 [+0.06, +0.43]"
        in " ".join(printed.split())
    )
