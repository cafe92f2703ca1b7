"""The command line as a user types it."""

import json
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from semdedup import cli
from semdedup.cli.flags import show
from semdedup.display import Displayable
from semdedup.errors import ClusterError
from semdedup.storage.tables import embedding_column

ADDED_COLUMNS = {"id", "max_id", "cosine_sim_score"}


def write_input(folder: Path, n: int = 60, copies: int = 10, metadata: dict | None = None, bad_rows: int = 0) -> None:
    """`n` random embeddings of length 8, and `copies` of the first of them; the last `bad_rows` are zero."""
    rows = np.random.default_rng(0).standard_normal((n, 8)).astype(np.float32)
    rows = np.concatenate([rows, rows[:copies]])
    rows[len(rows) - bad_rows :] = 0
    table = pa.table({"id": [f"c{i}" for i in range(len(rows))], "embedding": embedding_column(rows)})
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), folder / "part.parquet")


@pytest.fixture
def run(client: distributed.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run a command line in an empty folder, on the cluster of the tests."""
    monkeypatch.chdir(tmp_path)

    def invoke(line: str, *, on_cluster: bool = True) -> Result:
        args = shlex.split(line)
        scheduler = ["--scheduler", client.scheduler.address] if on_cluster else []
        return CliRunner().invoke(cli.main, [args[0], *scheduler, *args[1:]])

    return invoke


def test_the_documented_command_runs_as_it_stands_and_writes_the_documented_layout(tmp_path: Path) -> None:
    write_input(tmp_path / "iv2_embd")
    command = f"""{shlex.quote(sys.executable)} -m semdedup.cli dedup \\
    --input-embeddings-path {tmp_path}/iv2_embd \\
    --output-path {tmp_path}/semantic_dedup \\
    --n-clusters 1000 \\
    --eps-thresholds 0.01 0.001 \\
    --eps-to-extract 0.01 \\
    --which-to-keep hard \\
    --files-per-partition 1000"""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "semantic_dedup"
    assert {path.name for path in out.iterdir()} == {
        "clustering_results", "extraction", "duplicates", "_forest", "_manifest.json", "_kmeans_centroids.npy",
        "_progress.json",
    }  # fmt: skip
    assert list((out / "clustering_results").glob("centroid=*/*.parquet"))
    scores = pq.read_table(out / "extraction" / "semdedup_pruning_tables")
    assert set(scores.column_names) == ADDED_COLUMNS
    assert scores.num_rows == 70
    summary = (out / "extraction" / "dedup_summary_0.01.csv").read_text().split()
    assert summary[0] == "eps,kept,removed,total"
    assert (out / "extraction" / "dedup_summary_0.001.csv").exists()
    removed = int(summary[1].split(",")[2])
    assert pq.read_table(out / "duplicates").num_rows == removed
    assert "duplicates at eps 0.01" in done.stdout


def test_copies_are_found_when_they_share_a_cluster(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    done = run("dedup --input-embeddings-path emb --output-path out --n-clusters 1 --eps-threshold 0.001 --quiet")
    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "out" / "duplicates").num_rows == 10


@pytest.mark.parametrize(
    "spelling",
    ["--eps-thresholds 0.1 0.01", "--eps-thresholds 0.1,0.01", "--eps-thresholds=0.1,0.01",
     "--eps-thresholds 0.1 --eps-thresholds 0.01"],
)  # fmt: skip
def test_several_values_are_spelled_with_spaces_commas_or_repeated(run, tmp_path: Path, spelling: str) -> None:
    write_input(tmp_path / "emb")
    done = run(f"dedup --input-embeddings-path emb {spelling} --output-path out --quiet")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "out" / "extraction").glob("*.csv")}
    assert names == {"dedup_summary_0.1.csv", "dedup_summary_0.01.csv"}


def test_the_eps_that_the_embedder_recommends_is_taken_and_said(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb", metadata={"semdedup.recommended_eps": "0.25"})
    done = run("dedup --input-embeddings-path emb --output-path out")
    assert "eps 0.25 (recommended by the embedder" in done.stderr
    assert (tmp_path / "out" / "extraction" / "dedup_summary_0.25.csv").exists()


def test_without_any_eps_the_default_is_taken_and_said(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    assert "eps 0.1 (the default" in run("dedup --input-embeddings-path emb --output-path out").stderr


def test_quarantined_rows_end_in_exit_status_3(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb", bad_rows=2)
    done = run("dedup --input-embeddings-path emb --output-path out --n-clusters 1 --quiet")
    assert done.exit_code == 3, done.output
    assert pq.read_table(tmp_path / "out" / "_quarantine").column("reason").to_pylist() == ["zero", "zero"]


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("dedup --input-embeddings-path nowhere --output-path out", 1, "no such path"),
        ("dedup --input-embeddings-path emb --output-path out --eps-threshold 1.5", 2, "eps must lie in [0, 1)"),
        ("dedup --input-embeddings-path emb --output-path out --n-clusters many", 2, "n_clusters must be"),
        ("dedup --input-embeddings-path emb --output-path out --metadata-fields absent", 2, "absent"),
        ("dedup --input-embeddings-path emb --output-path out --storage-options not-json", 2, "not valid JSON"),
        ("dedup --input-embeddings-path emb --output-path out --eps-threshold 0 --eps-thresholds 0", 2, "not both"),
        ("extract emb --eps 0.1", 1, "no scores in"),
    ],
)  # fmt: skip
def test_faults_end_in_one_clear_message_and_a_status(
    run, tmp_path: Path, line: str, status: int, message: str
) -> None:
    write_input(tmp_path / "emb")
    done = run(line)
    assert done.exit_code == status, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "out" / "duplicates").exists()


def test_a_folder_of_pickles_is_refused_naming_the_parquet_beside_it(run, tmp_path: Path) -> None:
    (tmp_path / "iv2_embd").mkdir()
    (tmp_path / "iv2_embd" / "a.pickle").write_bytes(b"cos\nsystem\n")
    done = run("dedup --input-embeddings-path iv2_embd --output-path out")
    assert done.exit_code == 1
    assert "iv2_embd_parquet" in done.stderr


def test_a_dry_run_says_what_it_would_do_and_writes_nothing(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    before = sorted(tmp_path.rglob("*"))
    done = run("dedup --input-embeddings-path emb --output-path out --dry-run")
    assert done.exit_code == 0
    assert "would write to" in done.stdout
    assert run("demo --dry-run").exit_code == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_of_extract_writes_nothing(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    run("dedup --input-embeddings-path emb --output-path out --eps-threshold 0.1 --quiet")
    before = sorted(tmp_path.rglob("*"))
    done = run("extract out --eps 0.2 --dry-run")
    assert "would write to" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_extract_applies_another_eps_to_scores_that_exist(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    run("dedup --input-embeddings-path emb --output-path out --n-clusters 1 --eps-threshold 0.001 --quiet")
    done = run("extract out --eps 0.9 --quiet")
    assert done.exit_code == 0, done.output
    scores = pq.read_table(tmp_path / "out" / "extraction" / "semdedup_pruning_tables")
    expected = {r["id"] for r in scores.to_pylist() if r["cosine_sim_score"] >= np.float32(0.1)}
    assert set(pq.read_table(tmp_path / "out" / "eps_0.9_any" / "duplicates").column("id").to_pylist()) == expected
    assert (tmp_path / "out" / "eps_0.9_any" / "dedup_summary_0.9.csv").exists()
    again = run("dedup --input-embeddings-path emb --output-path out --n-clusters 1 --eps-threshold 0.001 --quiet")
    assert again.exit_code == 0, again.output


def test_what_a_command_tells_comes_as_json_alone(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb", bad_rows=1)

    def told(line: str, status: int = 0) -> dict:
        done = run(f"{line} --json", on_cluster=not line.startswith(("explain", "report", "export", "status")))
        assert done.exit_code == status, done.output
        return json.loads(done.stdout)

    dedup = told("dedup --input-embeddings-path emb --output-path out --n-clusters 1 --eps 0.001", 3)
    assert (dedup["total"], dedup["duplicates"], dedup["kept"]) == (70, 9, 60)
    assert (dedup["quarantined"], dedup["eps"], dedup["removal"]) == ({"zero": 1}, 0.001, "any")
    assert dedup["paths"]["ids to drop"] == str(tmp_path / "out" / "duplicates")
    assert told("extract out --eps 0.9")["eps"] == 0.9
    assert "would write to" in "\n".join(told("extract out --eps 0.8 --dry-run")["plan"])
    assert told("explain out c60")["row"]["pair"]["id"] == "c60"
    assert told("leaks emb emb --output-path leaks --eps 0.001", 3)["leaks"] == 69
    assert told("report out")["report"] == str(tmp_path / "out" / "report.html")
    assert told("status out")["state"] == "done"
    exported = told("export out --format parquet --input-embeddings-path emb --output-path kept")
    assert (exported["rows"], exported["kept"]) == (70, 60)


def test_overwrite_clears_results_of_other_parameters(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    line = "dedup --input-embeddings-path emb --output-path out --quiet --n-clusters"
    assert run(f"{line} 3").exit_code == 0
    refused = run(f"{line} 4")
    assert refused.exit_code == 1
    assert "n_clusters: 3 there, 4 now" in refused.stderr
    assert run(f"{line} 4 --overwrite").exit_code == 0


def test_doctor_finds_everything_in_order(run, tmp_path: Path) -> None:
    write_input(tmp_path / "emb")
    done = run("doctor --input-path emb --output-path out")
    assert done.exit_code == 0, done.output
    assert "agree" in done.stdout
    assert "All is well: " in done.stdout.splitlines()[-1]
    assert "not installed (optional: GPUs" in done.stdout or find_spec("cupy")
    assert "float32" in done.stdout, "what products are computed in"
    assert not (tmp_path / "out").exists()


def test_doctor_tells_what_is_wrong(run) -> None:
    done = run("doctor --input-path nowhere neither --output-path out")
    assert done.exit_code == 1
    assert "does not see" in done.stdout
    lines = done.stdout.splitlines()
    for name in ("nowhere", "neither"):
        (line,) = (line for line in lines if "does not see" in line and line.split()[1].endswith(name))
        assert "fault" in line
    assert "every worker writes to it" in done.stdout, "also after those that fail"
    assert re.fullmatch(r"2 faults: /.*/nowhere, /.*/neither", lines[-1])


def test_doctor_goes_on_where_no_cluster_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        raise ClusterError("no scheduler answers")

    monkeypatch.setattr("semdedup.doctor.client_for", connect)
    done = CliRunner().invoke(cli.main, ["doctor", "--json", "--input-path", str(tmp_path)])
    assert done.exit_code == 1
    found = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}
    assert found["cluster"] == {"subject": "cluster", "found": "no scheduler answers", "state": "fault"}
    assert found[str(tmp_path)]["found"] == "no worker was asked: is there, seen from here"


HEADINGS = ("Input", "Method", "Output", "What one video may cost", "Cluster", "Storage", "Other")


def test_every_command_has_help_with_an_example_and_its_options_below_headings_in_whole_sentences() -> None:
    for name, command in cli.main.commands.items():
        done = CliRunner().invoke(cli.main, [name, "--help"])
        assert done.exit_code == 0
        assert f"semdedup {name}" in done.output, name
        found = [heading for heading in re.findall(r"(?m)^(\w.*):$", done.output) if heading != "Options"]
        assert found == sorted(found, key=HEADINGS.index), name
        words = " ".join(done.output.split()).replace("- ", "-")
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert param.opts[0] in words
                assert " ".join((param.help or "").split()).replace("- ", "-") in words, (name, param.name)
    listed = " ".join(CliRunner().invoke(cli.main, ["--help"]).output.split())
    assert "..." not in listed.partition("Commands:")[2]
    assert "Show a result as one page of HTML: the curve, pairs around any threshold, groups of duplicates" in listed


def test_one_word_for_the_threshold() -> None:
    without = {"split", "embed", "caption", "overlaps", "calibrate", "status", "clean", "doctor", "demo", "config"}
    for name, command in cli.main.commands.items():
        spelled = [flag for param in command.params for flag in param.opts]
        assert ("--eps" in spelled) is (name not in without), name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_that_the_readme_tells_of_is_there_for_each_shell(shell: str) -> None:
    script = CliRunner().invoke(cli.main, env={"_SEMDEDUP_COMPLETE": f"{shell}_source"}, prog_name="semdedup")
    assert script.exit_code == 0, script.output
    assert f"_SEMDEDUP_COMPLETE={shell}_complete" in script.output
    for line, offered in (("shard --ep", "--eps"), ("dedup --removal w", "witness"), ("config da", None),
                          ("config de", "dedup"), ("doctor --input-path x", "file")):  # fmt: skip
        *before, begun = line.split()
        position = begun if shell == "fish" else str(len(before) + 1)
        environment = {"COMP_WORDS": f"semdedup {line}", "COMP_CWORD": position}
        environment |= {"_SEMDEDUP_COMPLETE": f"{shell}_complete"}
        found = CliRunner().invoke(cli.main, env=environment, prog_name="semdedup").output
        assert not found.strip() if offered is None else offered in found, (line, found)


def test_dask_knows_the_program_as_a_command_of_its_own() -> None:
    command = [sys.executable, "-m", "dask", "semdedup", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "dedup" in done.stdout


@pytest.mark.slow
def test_secrets_given_as_storage_options_are_never_shown(run, tmp_path: Path) -> None:
    secret = json.dumps({"key": "k", "secret": "canary-0451", "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"}})
    line = f"dedup --input-embeddings-path s3://b/emb --output-path out --storage-options {shlex.quote(secret)}"
    done = run(line)
    assert done.exit_code == 1
    assert "canary-0451" not in done.output
    broken = run(line.replace("}}", "}"))
    assert broken.exit_code == 2
    assert "canary-0451" not in broken.output


def test_ctrl_c_ends_with_130_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    write_input(tmp_path / "in")
    monkeypatch.setattr("semdedup.SemanticDeduplicationWorkflow.run", interrupted)
    result = CliRunner().invoke(
        cli.main, ["dedup", "--input-embeddings-path", str(tmp_path / "in"), "--output-path", str(tmp_path / "out")]
    )
    assert result.exit_code == 130
    assert "run the same command again to go on" in result.stderr


def test_paths_in_a_table_are_not_folded_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    class Result(Displayable):
        def rows(self) -> list[tuple[str, str]]:
            return [("ids to drop", f"/{'folder/' * 40}duplicates")]

    show(Result())
    assert f"/{'folder/' * 40}duplicates" in capsys.readouterr().out
