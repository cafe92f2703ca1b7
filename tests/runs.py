"""What the tests of `run` share: a folder of videos, what was made of it, and what of that must be the same again."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import distributed
import pandas as pd

from semdedup import VideoDeduplicationWorkflow
from semdedup.run_result import RunResult
from tests.helpers import contents
from tests.splits import BRIEF, copy_folder, read_rows

TEXTS = ("manifest.json", "README.md", "report.html", "_manifest.json", "_videos.parquet")
"""Files that tell paths or times."""


class Place(NamedTuple):
    """A folder of videos, and what `run` made of it."""

    videos: Path
    out: Path
    split: Mapping[str, Any] = BRIEF

    def workflow(self, **parameters: Any) -> VideoDeduplicationWorkflow:
        given = {"split": dict(self.split), "shard": {"samples_per_shard": 4}, "verbose": False, **parameters}
        return VideoDeduplicationWorkflow(str(self.videos), str(self.out), **given)

    def run(self, client: distributed.Client, **parameters: Any) -> RunResult:
        return self.workflow(**parameters).run(client)

    def command(self, client: distributed.Client, *more: Any) -> list[str]:
        told = {"video_dir": str(self.videos), "output_path": str(self.out), "split": dict(self.split)}
        told["shard"] = {"samples_per_shard": 4}
        config = self.out.parent / "run.yaml"
        config.write_text(json.dumps(told))  # JSON is YAML
        scheduler = ["--scheduler", str(client.scheduler.address), "--quiet"]
        return ["run", "--config", str(config), *scheduler, *map(str, more)]

    def shards(self) -> dict[str, tuple[bytes, int]]:
        """Content and time of each tar."""
        tars = (self.out / "dataset").rglob("*.tar")
        return {tar.name: (tar.read_bytes(), tar.stat().st_mtime_ns) for tar in tars}

    def samples(self) -> list[str]:
        """Ids in the tars, in order."""
        index = pd.read_parquet(self.out / "dataset" / "index.parquet")
        found = []
        for name in dict.fromkeys(index["shard"]):
            with tarfile.open(self.out / "dataset" / name) as tar:
                found += [member.split(".")[0] for member in tar.getnames() if member.endswith("mp4")]
        assert found == index["id"].tolist()
        return found

    def dropped(self) -> pd.DataFrame:
        return pd.read_parquet(self.out / "dataset" / "dropped.parquet").set_index("id")

    def video_of(self) -> Mapping[str, str]:
        return read_rows(self.out / "clips").set_index("id")["video"].to_dict()


def copied(place: Place, folder: Path) -> Place:
    """A copy of a place."""
    videos, out = (copy_folder(path, folder / path.name) for path in (place.videos, place.out))
    return place._replace(videos=videos, out=out)


def compared(out: Path) -> dict[str, bytes]:
    """Everything that does not tell of paths or times."""
    return {name: content for name, content in contents(out).items() if name.rsplit("/", 1)[-1] not in TEXTS}
