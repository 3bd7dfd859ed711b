"""An adapter and its base -> plain weights."""

from __future__ import annotations

from pathlib import Path

from bdpo.errors import BdpoError
from bdpo.files import folder_made_whole
from bdpo.models.loading import load
from bdpo.models.names import resolve


def merge(run: str | Path, out: str | Path, *, dtype: str = "auto") -> Path:
    """Write the adapter in `run` merged into its base as plain weights that any engine loads.

    Raises:
        BdpoError: `run` is not an adapter folder, `out` already holds something, or another process writes it.
    """
    out = Path(out)
    folder = resolve(run)
    if not (folder / "adapter_config.json").exists():
        raise BdpoError(f"{folder} holds no adapter (adapter_config.json): there is nothing to merge.")
    with folder_made_whole(out, wait=False) as work:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            raise BdpoError(f"{out} is not empty: choose another --out or empty it.")
        loaded = load(folder, dtype=dtype)
        loaded.model.merge_and_unload().save_pretrained(work)
        loaded.tokenizer.save_pretrained(work)
    return out
