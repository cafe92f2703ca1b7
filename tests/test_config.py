"""The file of --config: one form for every command, and the templates that `semdedup config` prints."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from semdedup import ParameterError, cli
from semdedup.cli.config_file import TOP, names_of, read_yaml
from semdedup.cli.params import Declared

COMMANDS = {name: command for name, command in cli.main.commands.items() if name != "config"}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def template(name: str) -> str:
    done = CliRunner().invoke(cli.main, ["config", name])
    assert done.exit_code == 0, done.output
    return done.output


def uncommented(text: str) -> str:
    return re.sub(r"(?m)^( *)#(\w+:)", r"\1\2", text)


def parsed(name: str, said: Any, *args: str) -> dict[str, Any]:
    """What a command is called with, by its parameters; what is not given is left out."""
    Path("c.yaml").write_text(said if isinstance(said, str) else yaml.safe_dump(said))
    with click.Context(cli.main, info_name="semdedup") as parent:
        context = COMMANDS[name].make_context(name, ["--config", "c.yaml", *args], parent=parent)
    return {key: value for key, value in context.params.items() if value not in (None, (), False)}


def run(name: str, said: Any, *args: str) -> Result:
    Path("c.yaml").write_text(said if isinstance(said, str) else yaml.safe_dump(said))
    return CliRunner().invoke(cli.main, [name, "--config", "c.yaml", *args])


def refused(name: str, said: Any, *args: str) -> str:
    done = run(name, said, *args)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_a_template_is_accepted_by_its_command_with_everything_uncommented(name: str) -> None:
    text = template(name)
    required = re.findall(r"Required\.\n *(\w+):\n", text)
    if required:
        assert "Missing" in refused(name, text), "what must be given is still asked for"
    filled = uncommented(text)
    for key in required:
        value = "0.1" if key == "eps" else f"nowhere/{key}"
        filled = re.sub(rf"(?m)^( *){key}:$", rf"\1{key}: {value}", filled, count=1)
    assert not re.search(r"(?m)^ *#\w", filled), "no setting is left in a comment"
    found = parsed(name, filled)
    given = {param.declared.name for param in names_of(COMMANDS[name]).values() if param.required}
    assert len(given) == len(required)
    assert "nowhere/" in str(found) or not required
    if name not in ("doctor", "demo", "calibrate"):  # which start a cluster, or ask for more
        done = run(name, filled, *(["--eps", "0.1"] if name == "extract" else []))
        whys = ("no such", "nowhere", "pip install")  # of captions, where their extra is not installed
        assert any(why in done.stderr for why in whys), done.output
        assert "must" not in done.stderr


def test_a_template_has_every_setting_of_its_command_once_with_its_sentence() -> None:
    for name, command in COMMANDS.items():
        text = template(name)
        words = " ".join(re.sub(r"(?m)^ *#( |   )", "", text).split())
        for param in names_of(command).values():
            assert " ".join(param.declared.help.split()) in words, (name, param.name)
        held = yaml.load(uncommented(text), yaml.SafeLoader)
        assert held.keys() <= {*TOP, "cluster", "storage", *COMMANDS}


def test_every_parameter_of_a_command_is_a_setting_or_of_the_command_line_alone() -> None:
    alone = {"config", "dry_run", "as_json", "verbose", "storage_options", "profile", "watch", "yes", "unfinished"}
    for name, command in COMMANDS.items():
        others = {param.name for param in command.params if not isinstance(param, Declared)}
        assert others <= alone, name


FILE: dict[str, Any] = {
    "video_dir": "videos", "output_path": "out", "eps": 0.2, "cluster": {"n_workers": 3}, "storage": {"anon": True},
    "run": {"drop_when": "both"},
    "split": {"fixed_stride_split_duration": 5, "limits": {"timeout_s": 7}, "upload_clips": False},
    "dedup": {"input_path": ["a", "b"], "n_clusters": 100, "tol": 0.5, "id_field": None, "eps": 0.3,
              "ranking_strategy": {"random_seed": 7}, "read_kwargs": {"pre_buffer": False}},
    "shard": {"input_clip_path": "out/clips", "output_dataset_path": "ds", "with_embeddings": "folder"},
    "overlaps": {"clips": "out/clips", "mirror": True}, "extract": {"target_fraction": 0.8},
    "leaks": {"a": "x", "b": "y", "verbose": False}, "explain": {"row_id": 17}, "status": {},
}  # fmt: skip


def test_one_file_serves_every_command_and_each_reads_the_top_and_its_own_section() -> None:
    split = parsed("split", FILE)
    assert (split["input_path"], split["output_path"], split["n_workers"]) == ("videos", "out", 3)
    assert split["fixed_stride_split_duration"] == 5
    assert split["limits"] == {"timeout_s": 7}
    assert "eps" not in split
    dedup = parsed("dedup", FILE)
    assert (dedup["input_path"], dedup["output_path"], dedup["eps"]) == (["a", "b"], "out", 0.3), "its own eps wins"
    assert dedup["id_field"] == "", "as a flag says that there is none"
    assert dedup["read_kwargs"] == {"pre_buffer": False}
    assert parsed("report", FILE)["results"] == "out"
    assert parsed("report", FILE)["eps"] == 0.2
    assert "output_path" not in parsed("report", FILE)
    assert parsed("estimate", {**FILE, "estimate": {"input_path": "emb"}})["eps"] == (0.2,)
    assert parsed("explain", FILE)["row_id"] == "17"
    assert parsed("leaks", FILE)["a"] == "x"
    assert parsed("status", FILE)["output_path"] == "out"
    whole = parsed("run", FILE)
    assert whole["split"] == FILE["split"]
    assert (whole["drop_when"], whole["eps"]) == ("both", 0.2)
    done = run("run", FILE)
    assert "dedup: input_path in the file is not for a run" in done.stderr
    assert "dedup has no parameter 'eps' here" in done.stderr, "which a run has on top"
    run_alone = {"video_dir": "in", "output_path": "out", "dedup": {"ranking_strategy": {"random_seed": 7}}}
    assert "no such path" in run("run", run_alone, "--which-to-keep", "random").stderr


def test_flags_win_over_the_file_by_whatever_spelling() -> None:
    assert parsed("dedup", FILE, "--eps-to-extract", "0.05") | {"eps": None} == {
        **parsed("dedup", FILE), "eps": None, "eps_to_extract": 0.05,
    }  # fmt: skip
    assert parsed("split", FILE, "--video-dir", "x", "--video-timeout", "9")["limits__timeout_s"] == 9
    assert parsed("report", FILE, "other")["results"] == "other"
    some = {"output_path": "out"}
    assert parsed("explain", some, "clip-1") == {"results": "out", "row_id": "clip-1"}, "an argument that is not there"
    assert parsed("explain", some, "other", "clip-1") == {"results": "other", "row_id": "clip-1"}
    assert "Missing argument 'ID'" in refused("explain", some)
    assert parsed("split", FILE, "--scheduler-file", "f")["scheduler_file"] == "f"
    ask = {**FILE, "cluster": {"scheduler": "tcp://a:1"}}
    assert "scheduler" not in parsed("split", ask, "--scheduler-file", "f"), "two that exclude each other"
    assert "eps" not in parsed("extract", FILE), "target_fraction of the section wins over the eps on top"
    assert parsed("extract", {**FILE, "extract": {"target_fraction": None}})["eps"] == 0.2, "null is as if not there"
    assert parsed("extract", FILE, "--eps", "0.1")["eps"] == 0.1
    assert "target_fraction" not in parsed("extract", FILE, "--eps", "0.1")
    assert "semantic_dedup_epsilon" not in parsed("shard", FILE), "without scores an eps is of no use"
    assert parsed("shard", FILE, "--input-semantic-dedup-path", "d")["semantic_dedup_epsilon"] == 0.2
    assert parsed("shard", FILE, "--eps", "0.1", "--semantic-dedup-epsilon", "0.1")["semantic_dedup_epsilon"] == 0.1


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        ("split", {"vido_dir": "x"}, "has no parameter 'vido_dir' here (did you mean 'video_dir'?); it has video_dir,"),
        ("split", {"drop_when": "both"}, "drop_when stands in a section: run or shard"),
        ("split", {"shard": {"sample_per_shard": 4}}, "shard has no parameter 'sample_per_shard' here (did you mean"),
        ("demo", {"dedup": [1]}, "c.yaml: dedup must be a mapping of parameters; got [1]"),
        ("dedup", {"cluster": {"worker": 2}}, "c.yaml: cluster has no parameter 'worker' here (did you mean"),
        ("dedup", {"cluster": {"n_workers": "2"}}, "c.yaml: cluster: n_workers must be a whole number of at least 1"),
        ("dedup", {"dedup": {"n_clusters": "many"}}, "c.yaml: dedup: n_clusters must be a whole number of at least 1,"),
        ("dedup", {"eps": "0.1"}, "c.yaml: eps must lie in [0, 1); got '0.1'"),
        ("dedup", {"dedup": {"distance_metric": "l2", "sim_metric": "cosine"}}, "are one setting; give one of them"),
        ("dedup", {"dedup": {"skip_bad_files": "no"}}, "skip_bad_files must be true or false; got 'no'"),
        ("split", {"video_dir": "x", "output_path": "y", "split": {"limits": {"timeout": 5}}},
         "limits has no parameter 'timeout' here (did you mean"),
        ("doctor", {"storage": ["secret"]}, "c.yaml: storage must be a mapping of options for fsspec; got list"),
        ("extract", {"extract": {"results": ""}}, "c.yaml: extract: results must be a path that is not empty; got ''"),
        ("demo", "dedup: {eps: 0.1}\ndedup: {eps: 0.2}\n", "is no YAML, line 2, column 1: 'dedup' stands there for"),
        ("demo", "storage: {key: secret, [\n", "c.yaml is no YAML, line 2"),
        ("demo", "just words", "c.yaml must hold a mapping, such as output_path: out; got a str"),
        ("demo", "a: \x00", "c.yaml is no YAML"),
        ("shard", {"shard": {"semantic_dedup_epsilon": 0.1, "eps": 0.2}}, "are one setting; give one of them"),
    ],
)  # fmt: skip
def test_what_the_file_has_wrong_is_said_by_place_and_with_what_there_is(name: str, said: Any, words: str) -> None:
    message = refused(name, said, *(["--input-embeddings-path", "in", "--output-path", "o"] if name == "dedup" else []))
    assert words in message
    assert "secret" not in message


def test_a_file_of_another_encoding_is_refused_with_the_place() -> None:
    Path("c.yaml").write_bytes("output_path: café".encode("latin-1"))
    with pytest.raises(ParameterError, match=r"c\.yaml is not UTF-8: byte 16 "):
        read_yaml("c.yaml")


def test_numbers_are_read_as_people_write_them() -> None:
    Path("c.yaml").write_text("a: 1e-4\nb: 1.5E3\nc: 0x10\nd: 1e\n")
    assert read_yaml("c.yaml") == {"a": 1e-4, "b": 1500.0, "c": 16, "d": "1e"}


def test_the_store_of_the_file_is_used_and_a_profile_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def plan(result: Any, verdicts: Any, **options: Any) -> Any:
        seen.append(options["storage_options"])
        raise SystemExit

    monkeypatch.setattr(sys.modules["semdedup.cli.calibrate"], "calibrate_result", plan)
    said = {"output_path": "r", "storage": {"anon": True, "profile": "a"}, "calibrate": {"verdicts": "v.json"}}
    run("calibrate", said)
    run("calibrate", said, "--profile", "b")
    run("calibrate", said, "--storage-options", json.dumps({"key": "k"}))
    assert seen == [{"anon": True, "profile": "a"}, {"anon": True, "profile": "b"}, {"key": "k"}]


def test_a_command_that_is_not_there_has_no_template() -> None:
    done = CliRunner().invoke(cli.main, ["config", "dedupe"])
    assert done.exit_code == 2
    assert "there is no command 'dedupe' (did you mean 'dedup'?); there are run, split," in done.stderr
