"""What a user installs: the wheel holds the code, the embedded data and the marker of types, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy of what git tracks, so that leftovers of other builds in the tree do not count."""
    folder = tmp_path_factory.mktemp("package")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(folder / "tree")], check=True)
    return zipfile.ZipFile(next(folder.glob("bdpo-*.whl")))


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(["git", "ls-files", "src/bdpo"], cwd=ROOT, capture_output=True, check=True, text=True)
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert there == {name.removeprefix("src/") for name in tracked.stdout.split()}
    assert "bdpo/py.typed" in there and "bdpo/starter/train.jsonl" in there and "bdpo/recipes/starter.yaml" in there


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(points).decode().split() == ["[console_scripts]", "bdpo", "=", "bdpo.cli:main"]
