"""What is kept of a comparison: `python studies/summary.py FOLDER OUT.json`, of `bdpo sweep` or `bdpo compare`.

OUT.json has each row of FOLDER/compare.json with its scores, differences to the baseline and intervals, to four digits,
and its curves: shares as fractions, margins in nats. Prints held-out preferences by kind as the tables of
studies/README.md have them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bdpo.evaluate.results.kinds import BALANCED, LOG_RATIO_MARGIN, REWARD
from bdpo.files import read_json, write_json
from bdpo.pairs.kinds import KINDS

ROWS = (*KINDS, BALANCED)
MEASURES = {REWARD: (100, "{:.1f}", "{:+.1f}"), LOG_RATIO_MARGIN: (1, "{:.2f}", "{:+.2f}")}  # in %, in nats


def summary(compared: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a comparison without what each prompt gave."""
    baseline = compared["baseline"]
    rows = []
    for row in compared["rows"]:
        methods = {}
        for name, cell in row["cells"].items():
            methods[name] = {"score": _kept(cell["score"])}
            if cell["difference"]:
                methods[name][f"difference to {baseline}"] = _kept(cell["difference"])
        rows.append({"row": row["name"], "measure": row["measure"], "n": row["n"], "methods": methods})
    curves = {"curves": compared["curves"]} if "curves" in compared else {}
    return {"baseline": baseline, "reference": compared["reference"], "rows": rows} | curves


def _kept(value: Mapping[str, Any]) -> dict[str, float]:
    names = ("value", "low", "high", "std")
    return {name: round(value[name], 4) for name in names if value.get(name) is not None}


def tables(found: Mapping[str, Any]) -> list[str]:
    """Lines of markdown: a table of reward accuracy by kind [%], and one of the log-ratio margin [nats]."""
    rows = {row["row"]: row["methods"] for row in found["rows"]}
    lines = []
    for measure, (scale, plain, signed) in MEASURES.items():
        if f"preferences {ROWS[0]}{measure}" not in rows:
            continue
        heads = [head for kind in ROWS for head in (kind, "difference")]
        lines += ["", f"| {measure.strip()} | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
        for method in rows[f"preferences {ROWS[0]}{measure}"]:
            cells = []
            for kind in ROWS:
                told = rows[f"preferences {kind}{measure}"][method]
                cells.append(plain.format(scale * told["score"]["value"]) + _spread(told["score"], scale, plain))
                cells.append(_interval(told.get(f"difference to {found['baseline']}"), scale, signed))
            lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _spread(score: Mapping[str, float], scale: float, form: str) -> str:
    return f" ± {form.format(scale * score['std'])}" if "std" in score else ""


def _interval(value: Mapping[str, float] | None, scale: float, form: str) -> str:
    if value is None:
        return ""
    middle, low, high = (form.format(scale * value[name]) for name in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def main(folder: str, out: str) -> None:
    """Write OUT.json and print the tables."""
    found = summary(
        read_json(Path(folder) / "compare.json", "run `bdpo sweep` to its end, or `bdpo compare`", rows=list)
    )
    write_json(Path(out), found)
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
