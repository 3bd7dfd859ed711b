"""A picture of the first screen of a page: `python docs/screenshot.py report.html docs/pictures/report.png`.

Needs Chromium. The picture of README and Home is of the report that studies/README.md tells how to make.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = "1100,820"  # pixels


def main(page: str, picture: str) -> None:
    """Let Chromium draw the page without a window."""
    with tempfile.TemporaryDirectory() as profile:
        how = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]
        how += [f"--user-data-dir={profile}", f"--window-size={SIZE}", f"--screenshot={Path(picture).absolute()}"]
        subprocess.run(["chromium", *how, Path(page).absolute().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
