"""Folders for temporary files: what a killed process left of them is removed, and nothing else."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from semdedup.storage import temporary
from semdedup.storage.temporary import NAME, temporary_folder, temporary_prefix

HELD = """
import time
from semdedup.storage.temporary import temporary_folder

with temporary_folder() as folder:
    (folder / "video").write_bytes(b"half of it")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, here and in programs that are started."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(temporary, "SECONDS_BETWEEN_LOOKS", 0.0)
    return tmp_path


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(parent: Path) -> None:
    root = str(Path(__file__).parents[1])
    command, environment = [sys.executable, "-c", HELD], os.environ | {"PYTHONPATH": root}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        other = Path(process.stdout.readline().strip())
        assert other.parent == parent
        with temporary_folder() as mine, temporary_folder():
            assert other.is_dir()
            assert mine.is_dir()
        process.kill()
    assert other.is_dir()
    with temporary_folder() as mine:
        assert list(parent.iterdir()) == [mine]
    assert list(parent.iterdir()) == []


def test_folders_of_other_hosts_and_others_of_like_names_stay(parent: Path) -> None:
    with temporary_folder() as mine:
        found = NAME.fullmatch(mine.name)
        assert found is not None
        system, boot, pid, start = found.groups()
    gone, other = "4194305", "0" * 8  # a process id that Linux does not give
    kept = [
        f"semdedup-{other}-{boot}-{gone}-{start}-abcd",
        f"semdedup-{system}-{boot}-{gone}-{start}-ab.cd",
        f"semdedup-{system}-{boot}-{pid}-{start}-abcd",
        f"semdedup-{system}-{boot}-{gone}-abcd",
        "semdedup-abcdefgh",
    ]
    left = [
        f"semdedup-{system}-{boot}-{gone}-{start}-abcd",
        f"semdedup-{system}-{other}-{pid}-{start}-abcd",  # before the host was started anew
        f"semdedup-{system}-{boot}-{pid}-{int(start) - 10_000}-abcd",  # another process got its id
    ]
    for name in kept + left:
        (parent / name).mkdir()
    (parent / f"semdedup-{system}-{boot}-{gone}-{start}-file").touch()
    (parent / f"semdedup-{system}-{boot}-{gone}-{start}-link").symlink_to(parent / kept[-1])
    with temporary_folder():
        pass
    assert {path.name for path in parent.iterdir() if path.is_dir() and not path.is_symlink()} == set(kept)
    assert len(list(parent.iterdir())) == len(kept) + 2


@pytest.mark.parametrize("what", ["", "estimate"])
def test_the_prefix_of_a_temporary_folder_tells_whose_it_is(parent: Path, what: str) -> None:
    with tempfile.TemporaryDirectory(prefix=temporary_prefix(what)) as folder:
        found = NAME.fullmatch(Path(folder).name)
        assert found is not None
        assert int(found[3]) == os.getpid()
        assert what in folder
