"""Patterns of an adapter's config, which peft matches with every module's name: one may be made never to end.

They are tried in a process of their own, which can be ended. Nearly all adapters have plain names alone, and need none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bdpo.errors import BdpoError

SECONDS = 20.0  # for all patterns; thousands of names take less than one
_FULL = ("target_modules", "exclude_modules", "feedforward_modules")  # as text a pattern of the whole name
# how peft asks for the others (`get_pattern_key`, `check_target_module_exists`): what stands before and behind them
_WITHIN = ((r"(.*\.)?(", ")$"), (r"(^|.*\.)", r"($|\..*)"), (r"(?:^|.*?\.)", r"\.(?P<idx>\d+)\."))
_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for place, (pattern, whole) in enumerate(patterns):
    print(place, flush=True)
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        continue  # peft will say so
    for name in names:
        (found.fullmatch if whole else found.match)(name)
"""


def refuse_endless(config: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    """Raise BdpoError where matching a pattern of an adapter's config with the names of modules does not end."""
    whole = [config[field] for field in _FULL if isinstance(config.get(field), str)]
    rest = {field: value for field, value in config.items() if field not in _FULL or not isinstance(value, str)}
    said = [(pattern, pattern, True) for pattern in whole]
    said += [(text, f"{before}{text}{behind}", False) for text in _texts(rest) for before, behind in _WITHIN]
    tried = [one for one in said if set(one[0]) & set("*+{")]  # without a repeat it ends
    if not tried:
        return
    asked = json.dumps([[(pattern, full) for _, pattern, full in tried], list(names)])
    command = [sys.executable, "-I", "-S", "-c", _MATCH]
    try:
        done = subprocess.run(command, input=asked.encode(), capture_output=True, timeout=SECONDS)
        ended, reached = done.returncode == 0, done.stdout
    except subprocess.TimeoutExpired as error:
        ended, reached = False, error.stdout or b""
    if not ended:
        pattern = tried[int((reached.split() or [b"0"])[-1])][0]
        raise BdpoError(
            f"{where}: matching the pattern {pattern[:60]!r} with the names of the model's modules does not end in "
            f"{SECONDS:g} s, as repeats in repeats may not: write it without them, or list the modules."
        )


def _texts(said: Any) -> Iterator[str]:
    """All texts in it, keys included."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, Mapping):
        for key, value in said.items():
            yield from _texts(key)
            yield from _texts(value)
    elif isinstance(said, list | tuple | set):
        for value in said:
            yield from _texts(value)
