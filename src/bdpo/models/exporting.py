"""A run -> a folder to serve: plain weights, and where it is asked for one GGUF file with a Modelfile for Ollama.

The GGUF file is made by llama.cpp's own converter, which belongs to a checkout of llama.cpp.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bdpo.errors import BdpoError, unknown
from bdpo.files import write_whole
from bdpo.models.loading import load_tokenizer
from bdpo.models.merging import plain_weights

CONVERTER = "convert_hf_to_gguf.py"
GGUF_TYPES = ("q8_0", "f16", "bf16", "f32")
"""What the converter writes by itself; smaller ones are made of these by llama.cpp's llama-quantize."""


def export(run: str | Path, out: str | Path, *, dtype: str = "auto", gguf: str | None = None) -> Path:
    """Write a run as plain weights into `out`, checked as `merge` says, and with `gguf` as a GGUF file too.

    Args:
        gguf: a name of GGUF_TYPES. The converter is looked for in the folder that LLAMA_CPP names, and on PATH.

    Raises:
        BdpoError: as `merge`; no such type; or the converter is not here or fails, and then the weights stay.
    """
    if gguf is not None and gguf not in GGUF_TYPES:
        raise unknown("GGUF type", gguf, GGUF_TYPES)
    converter = None if gguf is None else _converter()
    out = plain_weights(run, out, dtype=dtype)
    if converter is None:
        return out
    file = out / f"model-{gguf}.gguf"
    done = subprocess.run(
        [sys.executable, converter, out, "--outfile", file, "--outtype", str(gguf)], capture_output=True, text=True
    )
    if done.returncode or not file.exists():
        said = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise BdpoError(f"{converter} failed ({' '.join(said)}): the plain weights are in {out}; convert them by hand.")
    write_whole(out / "Modelfile", modelfile(file.name, str(load_tokenizer(out).eos_token)))
    return out


def modelfile(gguf: str, stop: str) -> str:
    """What `ollama create NAME -f Modelfile` reads; Ollama takes the chat template from the GGUF file.

    >>> print(modelfile("model-q8_0.gguf", "<|im_end|>"))
    FROM ./model-q8_0.gguf
    PARAMETER stop "<|im_end|>"
    <BLANKLINE>
    """
    return f"FROM ./{gguf}\nPARAMETER stop {json.dumps(stop)}\n"


def _converter() -> Path:
    folder = os.environ.get("LLAMA_CPP")
    found = shutil.which(CONVERTER) if folder is None else Path(folder) / CONVERTER
    if found is None or not Path(found).is_file():
        raise BdpoError(
            f"{found or CONVERTER} is not here: clone llama.cpp, install what its requirements.txt lists, and name the "
            "folder in LLAMA_CPP."
        )
    return Path(found)
