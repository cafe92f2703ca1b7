"""What a disk holds when the power goes: after exit 0 everything, before it what a run can go on with."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import distributed
import numpy as np
import pytest

from semdedup.runs.commit import Orders
from semdedup.runs.record import Record
from semdedup.storage.location import Location
from tests.helpers import contents, near_duplicates, workflow, write_embeddings

pytestmark = pytest.mark.slow


def call(*command: str | Path) -> bool:
    return subprocess.run([str(part) for part in command], check=False, capture_output=True).returncode == 0


@contextlib.contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir()
    if not call("mount", "-o", "loop", image, folder):
        pytest.skip("mounting an image takes root and loop devices")
    try:
        yield folder
    finally:
        assert call("umount", "-l", folder)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small disk."""
    if os.geteuid() or not shutil.which("mkfs.ext4"):
        pytest.skip("an ext4 image is mounted by root, with mkfs.ext4")
    image = tmp_path / "img"
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    assert call("mkfs.ext4", "-q", "-F", image)
    return image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    ids, rows = near_duplicates(np.random.default_rng(2), 600, 16)
    rows[9] = 0
    return write_embeddings(tmp_path / "in", ids, rows, 2)


def test_a_power_cut_right_after_the_end_loses_nothing(
    image: Path, source: Path, client: distributed.Client, tmp_path: Path
) -> None:
    with mounted(image, tmp_path / "disk") as disk:
        workflow(source, disk / "of/mine/out", n_clusters=6).run(client)
        shutil.copyfile(image, tmp_path / "cut")  # what the disk holds now, not what is in memory
        written = contents(disk / "of/mine/out")
    with mounted(tmp_path / "cut", tmp_path / "after") as disk:
        out = disk / "of/mine/out"
        record = Record(Location.of(out))
        assert [name for step in record.steps.values() for name in step["files"]]
        for step in record.steps:
            assert record.committed(step)
            assert record.changed(step, verify=True) == []
        assert {name: held for name, held in contents(out).items() if name != "_owner.json"} == written
        assert json.loads((out / "_manifest.json").read_bytes())["format"] == 2


@pytest.mark.parametrize("moment", ["before the orders", "after them"])
def test_a_power_cut_before_the_end_is_gone_on_from(
    moment: str, image: Path, source: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Orders.write

    def cut(orders: Orders, scratch: Location) -> None:
        if moment == "after them":
            write(orders, scratch)
        if not (tmp_path / "cut").exists():
            shutil.copyfile(image, tmp_path / "cut")
        if moment == "before the orders":
            write(orders, scratch)

    monkeypatch.setattr(Orders, "write", cut)
    with mounted(image, tmp_path / "disk") as disk:
        workflow(source, disk / "out", n_clusters=6).run(client)
        written = contents(disk / "out")
    with mounted(tmp_path / "cut", tmp_path / "after") as disk:
        record = Record(Location.of(disk / "out"))
        assert record.steps["kmeans"]["status"] == "begun"
        workflow(source, disk / "out", n_clusters=6, take_over=True).run(client)
        assert contents(disk / "out") == written
