"""The figure of docs/method.md: `python docs/figures.py docs/pictures` draws tilt and balance.

The imbalances are made up: 2,000 draws of a normal distribution around 0.6 nats/token, with a spread of 0.7.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

from bdpo.method.balance import balance

matplotlib.use("svg")
CENTERS = {"none": "as it is: a tilt, and the balance around it", "mean": "centred: the balance alone"}


def main(out: str) -> dict[str, float]:
    """Draw it; the mean weight of the chosen responses for each way of centring."""
    from matplotlib import pyplot

    d = np.sort(np.random.default_rng(0).normal(0.6, 0.7, 2000))
    matplotlib.rcParams |= {"svg.hashsalt": "bdpo", "svg.fonttype": "none"}  # the same bytes each time, and few
    figure, axes = pyplot.subplots(1, 2, figsize=(8, 2.9), sharey=True, layout="constrained")
    means = {}
    for axis, (center, title) in zip(axes, CENTERS.items(), strict=True):
        weights = balance(d.tolist(), [0.0] * len(d), center=center)
        w_c, w_r = weights.chosen_weight.numpy(), weights.rejected_weight.numpy()
        means[center] = float(w_c.mean())
        counts, edges = np.histogram(d, 40)
        axis.bar(edges[:-1], counts / counts.max(), np.diff(edges), align="edge", color="#c9d3de")
        axis.plot(d[::4], w_c[::4], color="#1f6feb", label=f"w_c, mean {w_c.mean():.2f}")
        axis.plot(d[::4], w_r[::4], color="#d1570b", label=f"w_r, mean {w_r.mean():.2f}")
        axis.axhline(1, color="#8b949e", linewidth=0.8, linestyle=":")
        axis.set(title=title, xlabel="imbalance d [nats/token]")
        axis.title.set_fontsize(10)
        axis.legend(fontsize=8, frameon=False)
    axes[0].set_ylabel("weight (bars: pairs)")
    figure.savefig(Path(out) / "tilt.svg", metadata={"Date": None})
    return means


if __name__ == "__main__":
    main(*sys.argv[1:])
