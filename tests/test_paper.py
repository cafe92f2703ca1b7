"""What is said of runs that nobody has made holds for those that were measured, at a thousandth of the size."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import distributed
import pyarrow.parquet as pq
import pytest
import s3fs

from benchmarks.counting import TaskCount
from benchmarks.counting_s3 import Count, CountingS3, counting
from benchmarks.data import make_rows, write_files
from benchmarks.measured_run import measured_run
from semdedup.dedup import sizes
from semdedup.dedup.compare.spans import tile_spans
from semdedup.dedup.forecast.given import MIB, Found, Machines, Rows
from semdedup.dedup.forecast.memory import Memory, client_parts, memory_of
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.forecast.tasks import tasks_of
from semdedup.dedup.forecast.traffic import Traffic, total_of, traffic_of
from semdedup.dedup.options import KMeansOptions
from tests.helpers import set_task_bytes, workflow

STEPS = {
    "semdedup": "probe",
    **dict.fromkeys(("sample", "getitem"), "sample"),
    **dict.fromkeys(("_first", "_seed"), "seed"),
    **dict.fromkeys(("_sums", "_add"), "fit"),
}
"""Steps that tasks belong to which are named after their function."""

WITHIN = 0.2
N, DIM, K, FILES, ITERATIONS = 4_000, 16, 12, 3, 4


@pytest.fixture(scope="module")
def store(s3_server: dict) -> Iterator[CountingS3]:
    """A store that counts, with a bucket in it."""
    with counting(s3_server["client_kwargs"]["endpoint_url"]) as found:
        s3fs.S3FileSystem(**found.storage_options, skip_instance_cache=True).mkdir("paper")
        yield found


def by_step(tasks: Mapping[str, int]) -> dict[str, int]:
    """Tasks that ended, by the names that the formulas have for their steps."""
    found: Counter[str] = Counter()
    for name, number in tasks.items():
        found["merge forests" if name.startswith("merge forests") else STEPS.get(name, name)] += number
    return dict(found)


def planned(rows: Rows, machines: Machines, result: Any, shares: Any = None) -> RunPlan:
    """The plan of a run that was made, with what was not known before it."""
    found = Found(shares, result.metadata["iterations"], result.duplicates / rows.n)
    return RunPlan.of(rows, machines, KMeansOptions(n_clusters=result.metadata["n_clusters"]), found)


def rows_in(folder: Path, n: int, dim: int) -> Rows:
    """Rows of `write_files` as they lie in a folder: PyArrow has tried dictionaries on ids and embeddings."""
    sizes = [path.stat().st_size for path in folder.iterdir()]
    stored, number = 4.6, 1.5  # of an id in a dictionary
    value_bytes = (sum(sizes) / n - stored - number) / dim
    return Rows(n, dim, len(sizes), 1 << 20, value_bytes, id_bytes=14, stored_id_bytes=stored, other_bytes=number)


def rows_of_clusters(store: CountingS3) -> list[int]:
    """How many rows each cluster of the run has."""
    fs, found = s3fs.S3FileSystem(**store.storage_options), [0] * K
    for name in fs.ls("paper/out/pairwise_results"):
        with fs.open(name) as file:
            found[int(name.rpartition("_")[2].removesuffix(".parquet"))] = pq.read_metadata(file).num_rows
    return found


class Measured(NamedTuple):
    """Tasks by step, and requests and bytes of the store, as they were and as they were to be."""

    tasks: dict[str, int]
    counts: dict[str, Count]
    expected_tasks: dict[str, int]
    expected: Traffic


@pytest.fixture(scope="module")
def measured(store: CountingS3, inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """A run of many small tasks from a store to a store, and as it is planned."""
    folder = tmp_path_factory.mktemp("paper")
    write_files(folder / "in", make_rows(N, DIM, n_topics=K), FILES)
    s3fs.S3FileSystem(**store.storage_options).put(f"{folder / 'in'}/", "paper/in/", recursive=True)
    kwargs = {"storage_options": store.storage_options}
    parameters = {"n_clusters": K, "max_iter": ITERATIONS, "eps": 0.05, "read_kwargs": kwargs, "write_kwargs": kwargs}
    inside.register_plugin(TaskCount())
    with pytest.MonkeyPatch.context() as patch:
        set_task_bytes(patch, 160_000)
        store.reset()
        result = workflow("s3://paper/in", "s3://paper/out", **parameters).run(inside)
        tasks, counts = dict(inside.cluster.scheduler.plugins[TaskCount.name].ended), store.counts()
        plan = planned(rows_in(folder / "in", N, DIM), Machines(1, 2), result, rows_of_clusters(store))
        return Measured(by_step(tasks), counts, tasks_of(plan), total_of(traffic_of(plan)))


@pytest.mark.slow
def test_tasks_of_a_run_are_as_many_as_the_formulas_say(measured: Measured) -> None:
    assert measured.tasks == measured.expected_tasks


def test_requests_and_bytes_of_a_run_are_those_of_the_formulas(measured: Measured) -> None:
    n, fetched, sent = (sum(getattr(count, name) for count in measured.counts.values()) for name in Count._fields)
    assert measured.expected.requests == pytest.approx(n, rel=WITHIN)
    assert measured.expected.fetched == pytest.approx(fetched, rel=WITHIN)
    assert measured.expected.sent == pytest.approx(sent, rel=WITHIN)


MANY_MACHINES = Machines(64 * 32, 1, 4096 * MIB)


@pytest.fixture(scope="module")
def on_paper() -> dict[int, RunPlan]:
    """Runs of 100 million and of a billion rows."""
    return {n: RunPlan.of(Rows(n, 512, n // 100_000), MANY_MACHINES) for n in (10**8, 10**9)}


def test_nothing_grows_with_the_square_of_the_rows(on_paper: Mapping[int, RunPlan]) -> None:
    (n, less), (m, more) = on_paper.items()
    times = m / n
    tasks = [sum(tasks_of(plan).values()) for plan in (less, more)]
    requests = [total_of(traffic_of(plan)) for plan in (less, more)]
    assert tasks[1] <= times * tasks[0]
    assert requests[1].requests <= times * requests[0].requests
    assert requests[1].fetched <= 1.1 * times * requests[0].fetched
    assert requests[1].sent <= 1.1 * times * requests[0].sent
    assert requests[1].requests / m < 0.02
    assert requests[1].fetched < 8 * more.rows.n_bytes
    client = [sum(client_parts(plan).values()) for plan in (less, more)]
    assert client[1] <= times * client[0]
    assert client[1] < 2048 * MIB


def test_a_worker_holds_no_more_of_more_rows(on_paper: Mapping[int, RunPlan]) -> None:
    for plan in on_paper.values():
        assert memory_of(plan, on_store=True).worker < plan.machines.memory


def test_the_work_of_a_task_is_bounded_where_a_cluster_is_large() -> None:
    shares = [0.01, *[0.99 / 22_360] * 22_360]
    plan = RunPlan.of(Rows(10**9, 512, 10_000), MANY_MACHINES, found=Found(shares))
    (tiles,) = [tiles for tiles in plan.tiled if tiles.n_rows == 10**7]
    spans = tile_spans(tiles, plan.rows.dim)
    most = max(2 * tiles.rows_per_tile**2 * plan.rows.dim * (span.last - span.first) for span in spans)
    assert most <= sizes.WORK_PER_TASK
    assert max(plan.sample_part_rows) * 4 * plan.rows.dim <= plan.clustering.task_bytes


@pytest.mark.slow
@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_memory_is_that_of_the_formulas(n: int, tmp_path: Path) -> None:
    dim, options = 64, {"eps": 0.05, "verbose": False}
    for name, rows in (("few", 1_000), ("many", n)):
        write_files(tmp_path / name, make_rows(rows, dim, n_topics=max(1, rows // 500)), 8)
    few = measured_run({"input_path": f"{tmp_path}/few", "output_path": f"{tmp_path}/out-few", **options})
    many = measured_run({"input_path": f"{tmp_path}/many", "output_path": f"{tmp_path}/out", **options})
    idle, found = (
        Memory(each["client"], each["scheduler"], max(each["workers"])) for each in (few["peak"], many["peak"])
    )
    rows = rows_in(tmp_path / "many", n, dim)
    plan = RunPlan.of(rows, Machines(2, 1, 2048 * MIB), found=Found(None, many["iterations"], many["duplicates"] / n))
    expected = memory_of(plan, idle=idle)
    for process in ("client", "scheduler", "worker"):
        assert getattr(expected, process) == pytest.approx(getattr(found, process), rel=WITHIN), process
    assert sum(by_step(many["tasks"]).values()) == pytest.approx(sum(tasks_of(plan).values()), rel=WITHIN)
