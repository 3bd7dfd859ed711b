"""How a command ends that does not end by itself: in one sentence and an exit code."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from bdpo.processes import first_to_say
from bdpo.terminal import visible

_GOES_ON = ("score", "train", "evaluate", "sweep", "demo")  # they write as they go; others all at once, or nothing
_WRITES_NOTHING = {"--dry-run", "--print-commands"}


def stopped(stop: BaseException) -> NoReturn:
    """Say that a signal stopped the command, and how to go on: the exception's last note, where the command knows."""
    how = getattr(stop, "__notes__", ["run the same command again"])[-1]
    goes_on = sys.argv[1:2] and sys.argv[1] in _GOES_ON and not _WRITES_NOTHING.intersection(sys.argv)
    kept = ". What was written is kept" if goes_on else ""
    fail(f"Stopped{kept}; {how}.", 128 + getattr(stop, "number", signal.SIGINT))


def fail(sentence: str, code: int = 2) -> NoReturn:
    """Say the sentence, in one of several processes."""
    if first_to_say(sentence):
        print(visible(f"bdpo: {sentence}").replace("\n", "\\n"), file=sys.stderr)
    sys.exit(code)
