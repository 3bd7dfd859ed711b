"""A scored folder whose files were damaged: what is found out, and that scoring again heals it without other work."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bdpo.errors import BdpoError
from bdpo.score import folder, score, scoring
from bdpo.score.folder import open_scores
from tiny import make_pairs, tiny_model, tiny_tokenizer

PAIRS = make_pairs(12)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored folder of three parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "PART_SIZE", 4)
        return score(tiny_model(), tiny_tokenizer(), PAIRS, tmp_path_factory.mktemp("whole") / "s").path


@pytest.fixture
def out(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scoring, "PART_SIZE", 4)
    shutil.copytree(whole, tmp_path / "s")
    return tmp_path / "s"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that are written."""
    names: list[str] = []
    write = folder.write_part
    monkeypatch.setattr(scoring, "write_part", lambda path, rows: (names.append(path.name), write(path, rows)))
    return names


def files(out: Path) -> dict[str, bytes]:
    kept = (path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in kept}


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def copy_over(out: Path) -> None:
    """A part and its checksum over another."""
    for name in ("part-00001.parquet", ".part-00001.sha256"):
        shutil.copy(out / "data" / name, out / "data" / name.replace("01", "00"))


def arrow(out: Path) -> Path:
    return next(out.glob(".arrow/*.arrow"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda out: cut(arrow(out)), lambda out: flip(arrow(out), 0.9), lambda out: arrow(out).write_bytes(b""),
        lambda out: arrow(out).unlink(), lambda out: next(out.glob(".arrow/*.sha256")).write_text("0"),
        lambda out: shutil.rmtree(out / ".arrow"),
    ],
    ids=["cut", "flipped", "empty", "gone", "checksum", "folder gone"],
)  # fmt: skip
def test_the_memory_mapped_copy_is_verified_and_made_again(
    whole: Path, out: Path, harm: Callable[[Path], None]
) -> None:
    harm(out)
    assert open_scores(out).rows[:] == open_scores(whole).rows[:]
    assert files(out) == files(whole)


def test_the_copy_of_a_folder_that_may_only_be_read_lies_in_the_cache(
    whole: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(out / ".arrow")
    before = files(out)
    monkeypatch.setenv("BDPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folder.os, "access", lambda path, mode: False)
    assert open_scores(out).rows[:] == open_scores(whole).rows[:]
    assert files(out) == before and len(list((tmp_path / "cache" / ".arrow").glob("*.arrow"))) == 1


def test_a_part_copied_over_another_with_its_checksum_is_found_out(whole: Path, out: Path, made: list[str]) -> None:
    copy_over(out)
    with pytest.raises(BdpoError, match=r"1 of 3 parts are missing or damaged \(first: part-00000.parquet\)"):
        open_scores(out)
    score(tiny_model(), tiny_tokenizer(), PAIRS, out)
    assert made == ["part-00000.parquet"] and files(out) == files(whole)


def test_a_part_of_other_scores_is_found_out(out: Path, tmp_path: Path, made: list[str]) -> None:
    score(tiny_model(seed=1), tiny_tokenizer(), PAIRS, tmp_path / "other")
    for name in ("part-00002.parquet", ".part-00002.sha256"):
        shutil.copy(tmp_path / "other" / "data" / name, out / "data")
    with pytest.raises(BdpoError, match=r"1 of 3 parts are missing or damaged \(first: part-00002.parquet\)"):
        open_scores(out)


@pytest.mark.parametrize("text", ["", "{", '{"format": 2}', "[]"])
def test_a_torn_manifest_is_written_again_and_nothing_is_scored(
    whole: Path, out: Path, made: list[str], text: str
) -> None:
    (out / "manifest.json").write_text(text)
    with pytest.raises(BdpoError, match=r"manifest\.json (is not JSON|holds)"):
        open_scores(out)
    score(tiny_model(), tiny_tokenizer(), PAIRS, out)
    assert made == [] and files(out) == files(whole)


@pytest.mark.parametrize("field", ["parts", "pairs", "model", "key"])
def test_a_manifest_that_says_something_else_is_found_out(whole: Path, out: Path, made: list[str], field: str) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    manifest[field] = {"parts": 1, "pairs": 4, "model": "other", "key": manifest["key"] | {"dtype": "float16"}}[field]
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BdpoError, match=r"manifest\.json is damaged: run the same `bdpo score` again, or"):
        open_scores(out)
    score(tiny_model(), tiny_tokenizer(), PAIRS, out)
    assert made == [] and files(out) == files(whole)


def test_a_torn_manifest_beside_something_else_is_left_alone(whole: Path, tmp_path: Path) -> None:
    for name in ("thesis.tex", "data/part-00000.parquet"):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("precious")
        (out / "manifest.json").write_text("{")
        before = files(out)
        with pytest.raises(BdpoError, match=r"manifest\.json is not JSON .*: score into another folder"):
            score(tiny_model(), tiny_tokenizer(), PAIRS, out)
        assert files(out) == before


def test_scores_of_before_there_were_these_checksums_are_made_again_where_they_lie(
    whole: Path, out: Path, made: list[str]
) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["checksum"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    for part in (out / "data").glob("*.parquet"):
        folder._checksum_path(part).write_text(folder.file_hash(part))
    score(tiny_model(), tiny_tokenizer(), PAIRS, out)
    assert len(made) == 3 and files(out) == files(whole)


def test_a_part_that_another_process_wrote_meanwhile_is_kept(out: Path) -> None:
    part = out / "data" / "part-00001.parquet"
    before = part.stat().st_mtime_ns
    folder.write_part(part, [])
    assert part.stat().st_mtime_ns == before
