"""Pairs, slow references and views of a scored folder."""

from pathlib import Path

import torch

from tiny import make_pairs

PAIRS = make_pairs(12)
SIDES = ("chosen", "rejected")


@torch.no_grad()
def slow(model, prefix, reply):
    """Reference: log-probability and summed entropy of one reply after one prefix, in float64, one plain forward."""
    logits = model(input_ids=torch.tensor([[*prefix, *reply]])).logits[0, len(prefix) - 1 : -1].double()
    every = torch.log_softmax(logits, -1)
    return every.gather(1, torch.tensor(reply)[:, None]).sum().item(), -(every.exp() * every).sum().item()


def numbers(data):
    """(rows, 6) of the numeric columns; (rows, 2) where comprehension was not measured."""
    names = [c for c in data.rows.column_names if c.endswith(("logps", "_mi")) and data.rows[c][0] is not None]
    return torch.tensor([[row[name] for name in names] for row in data.rows], dtype=torch.float64)


def parts(out):
    return {path.name: path.read_bytes() for path in sorted((Path(out) / "data").glob("*.parquet"))}
