"""What dead runs have left is told by size and deleted; results, what is not ours and what is at work stay."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from semdedup import ParameterError, cli
from semdedup.runs.clean import clean
from semdedup.runs.owner import owned
from semdedup.storage.location import Location
from tests.helpers import contents
from tests.records import put_begun, put_committed

HALF = "_0123456789abcdef0123456789abcdef.tmp"
STRAYS = {
    "clips/_scratch/split-11111111/a/b": 500,
    f"clips/{HALF}": 30,
    f"clips/clips/{HALF}": 20,
    "set/_scratch/export/data/train-0.parquet": 400,
    "_estimate-0123456789ab/_scratch/estimate-22222222/x": 100,
    "_estimate-0123456789ab/scores/y": 7,
}
STAY = {
    "clips/clips/x.mp4": 1,
    "clips/_scratch/mine/notes.txt": 50,  # no name that a run gives
    "other/_scratches/split-11111111": 60,
    "dedup/_scratch/kmeans-33333333/z": 70,
}
GOES_ON = "clips/_scratch/embed-00000000/tasks/1"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for name, size in {**STRAYS, **STAY, GOES_ON: 300}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    put_committed(Location.of(str(tmp_path / "clips")), "split", "clips/x.mp4")
    put_begun(Location.of(str(tmp_path / "clips")), "embed")
    return tmp_path


def test_what_dead_runs_have_left_goes_and_everything_else_stays(out: Path) -> None:
    before = contents(out)
    with owned(Location.of(str(out / "dedup"))):
        told = clean(str(out), delete=False)
        assert [each.n_bytes for each in told.found] == [500, 400, 300, 107, 30, 20]
        assert [each.path for each in told.found if each.goes_on] == [str(out / "clips/_scratch/embed-00000000")]
        assert told.n_bytes == sum(STRAYS.values()) + 300
        assert list(told.busy or {}) == [str(out / "dedup")]
        assert set(contents(out)) - {"dedup/_owner.json"} == set(before), "nothing is deleted yet"
        done = clean(str(out))
        assert sum(each.n_bytes for each in done.deleted) == sum(STRAYS.values())
    assert contents(out) == {name: content for name, content in before.items() if name not in STRAYS}
    assert not (out / "_estimate-0123456789ab").exists()
    clean(str(out), unfinished=True)
    assert {*contents(out)} == {*before} - {*STRAYS, GOES_ON, "dedup/_scratch/kmeans-33333333/z"}
    assert clean(str(out), unfinished=True).found == ()


def test_the_command_tells_sizes_and_deletes_when_that_is_said(out: Path) -> None:
    def command(*flags: str) -> str:
        done = CliRunner().invoke(cli.main, ["clean", str(out), *flags])
        assert done.exit_code == 0, done.output
        return done.output

    before = contents(out)
    assert "500 bytes in 1 files" in command("--dry-run")
    assert "nothing was deleted: give --yes" in command()
    largest = {"path": str(out / "clips/_scratch/split-11111111"), "bytes": 500, "files": 1}
    assert json.loads(command("--json"))["found"][0] == {**largest, "goes_on": False, "deleted": False}
    assert contents(out) == before
    assert "deleted: 1,127 bytes" in command("--yes")
    assert GOES_ON in contents(out)


def test_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, words in (("none", "no such path"), ("file", "is a file")):
        with pytest.raises(ParameterError, match=words):
            clean(str(tmp_path / name))
