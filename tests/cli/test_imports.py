"""Commands that need no model answer without torch and transformers, which take seconds to import."""

import subprocess
import sys

import pytest

_PROBE = """
import sys
from bdpo.cli import main
try:
    main()
except SystemExit as end:
    print(end.code, *(name for name in ("torch", "transformers") if name in sys.modules))
"""


@pytest.mark.parametrize("command", ["compare", "data check", "judge-agreement"])
def test_a_wrong_path_is_refused_before_torch_is_loaded(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *command.split(), "nowhere.jsonl"], capture_output=True, text=True
    )
    assert "nowhere.jsonl" in done.stderr
    assert done.stdout.split() == ["2"]
