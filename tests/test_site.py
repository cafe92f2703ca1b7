"""What a site says in Dask's configuration: of workers, in files and the environment; and which scheduler."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import dask
import distributed
import pytest
import yaml
from click.testing import CliRunner

from semdedup import ClusterError, ClusterOptions, ParameterError, cli
from semdedup.cli.flags import cluster_of
from semdedup.compute.cluster import client_for
from semdedup.compute.options import SITE
from semdedup.settings import Setting, settings_of

OF_SITE = [declared for declared in settings_of(ClusterOptions) if declared.site]
SAID: dict[str, Any] = {"n_workers": 3, "threads_per_worker": 2, "memory_limit": "3GiB", "backend": "cpu"}
OTHER: dict[str, Any] = {"n_workers": 5, "threads_per_worker": 4, "memory_limit": "5GiB", "backend": "gpu"}


def of_command(*args: str) -> ClusterOptions:
    """The cluster that a command is called with."""
    command = cli.main.commands["doctor"]
    with click.Context(cli.main, info_name="semdedup") as parent:
        return cluster_of(command.make_context("doctor", list(args), parent=parent).params)


@pytest.mark.parametrize("declared", OF_SITE, ids=lambda declared: declared.name)
def test_keyword_and_flag_win_over_the_file_that_wins_over_the_site_that_wins_over_the_default(
    declared: Setting, tmp_path: Path
) -> None:
    name, flag = declared.name, f"--{declared.name.replace('_', '-')}"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"cluster": {name: OTHER[name]}}))
    in_file = ["--config", str(tmp_path / "run.yaml")]

    def found(*args: str) -> Any:
        return getattr(of_command(*args), name)

    assert found() == getattr(ClusterOptions(), name) == declared.default
    with dask.config.set({f"{SITE}.{name.replace('_', '-')}": SAID[name]}):
        assert found() == getattr(ClusterOptions(), name) == SAID[name]
        assert found(*in_file) == getattr(ClusterOptions(**{name: OTHER[name]}), name) == OTHER[name]
        if declared.default is not None:
            assert found(*in_file, flag, str(declared.default)) == declared.default, "it is given, though the default"
        assert getattr(ClusterOptions(**{name: declared.default}), name) == declared.default
        others = [one for one in settings_of(ClusterOptions) if one.name != name]
        assert all(getattr(ClusterOptions(), one.name) == one.default for one in others)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({SITE: {"n_workers": "many"}}, "Dask's configuration: semdedup.cluster: n_workers must be a whole number"),
        ({SITE: {"n-worker": 2}}, "has no parameter 'n_worker' here (did you mean 'n_workers'?)"),
        ({SITE: {"scheduler": "tcp://127.0.0.1:1"}}, "semdedup.cluster has no parameter 'scheduler' here"),
        ({SITE: 5}, "semdedup.cluster must be a mapping of parameters; got 5"),
        ({"semdedup": {"clusters": {}}}, "did you mean 'cluster'?"),
    ],
)
def test_what_is_wrong_in_it_is_refused_with_the_place(said: dict[str, Any], message: str) -> None:
    with dask.config.set(said), pytest.raises(ParameterError) as caught:
        ClusterOptions()
    assert message in str(caught.value)


def test_the_printed_file_says_what_holds_anyway_and_is_read_by_dask_beneath_the_environment(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.main, ["config", "site"])
    plain, section = done.output, {one.name: one.default for one in OF_SITE}
    assert yaml.safe_load(plain) == {"semdedup": {"cluster": None}}
    assert yaml.safe_load(re.sub(r"(?m)^( *)#(\w+:)", r"\1\2", plain)) == {"semdedup": {"cluster": section}}

    (tmp_path / "semdedup.yaml").write_text(plain + "    memory_limit: 2GiB\n    n-workers: 2\n")
    code = "import semdedup; print(semdedup.ClusterOptions())"
    environment = {**os.environ, "DASK_CONFIG": str(tmp_path), "DASK_SEMDEDUP__CLUSTER__N_WORKERS": "4"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "n_workers=4" in ran.stdout
    assert "memory_limit='2GiB'" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["semdedup.yaml"]


def test_the_scheduler_of_dask_s_configuration_is_taken_where_nobody_names_another(client: distributed.Client) -> None:
    """As Dask's own programs do: its operator sets DASK_SCHEDULER_ADDRESS where a job runs."""
    address = client.scheduler.address
    with dask.config.set({"scheduler-address": address}), client_for(None, ClusterOptions(n_workers=1)) as found:
        assert found.scheduler.address == address
    with (
        dask.config.set({"scheduler-address": "tcp://127.0.0.1:1"}),
        client_for(None, ClusterOptions(scheduler=address)) as named,
        client_for(address, ClusterOptions()) as given,
        client.as_current(),
        client_for(None, ClusterOptions()) as current,
    ):
        assert {one.scheduler.address for one in (named, given)} == {address}
        assert current is client


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", 1])
def test_a_configured_scheduler_that_does_not_answer_is_told_with_where_it_is_from(
    address: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.compute.cluster.SECONDS_TO_WAIT_FOR_SCHEDULER", 0.2)
    with dask.config.set({"scheduler-address": address}), pytest.raises(ClusterError) as caught:
        client_for(None, ClusterOptions()).__enter__()
    said = f"no Dask scheduler answers at {address} (scheduler-address of Dask's configuration)"
    assert said in str(caught.value)
