"""The recipes of `deploy/`: what can be said of them without the systems that they are for."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from semdedup import cli

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MANIFESTS = {path.name: yaml.safe_load(path.read_text()) for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))}


def folder_of(package: str) -> Path:
    """Where a package of the extra `deploy` stands, which may take long to import."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: pip install '.[deploy]'")
    return Path(spec.origin).parent


def parts_within(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a manifest."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from parts_within(part)


def containers() -> dict[str, dict[str, Any]]:
    """Every container of the manifests, by file and name."""
    return {
        f"{file}: {one['name']}": one
        for file, manifest in MANIFESTS.items()
        for part in parts_within(manifest)
        for one in part.get("containers", ())
    }


# The container


def test_hadolint_finds_nothing_in_the_recipe_of_the_container() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if program is None:
        pytest.skip("no hadolint here: pip install '.[deploy]'")
    done = subprocess.run([program, DEPLOY / "container" / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_container_is_made_of_is_there() -> None:
    text = (DEPLOY / "container" / "Dockerfile").read_text()
    for extras in re.findall(r"EXTRAS=([\w,]+)", text):
        assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    copied = {name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.M) for name in line.split()}
    ignored = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in copied)
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= copied


# Kubernetes


def closed(schema: Any) -> Any:
    """A schema in which names that it does not list are refused, as `kubectl apply` refuses them."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(each) for name, each in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_open:
        made["additionalProperties"] = False
    return made


@pytest.mark.parametrize("name", ["dask-job.yaml", "dask-cluster.yaml"])
def test_what_the_operator_gets_is_what_its_own_definitions_say(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    manifest = MANIFESTS[name]
    charts = folder_of("dask_kubernetes") / "operator" / "deployment" / "helm" / "dask-kubernetes-operator" / "crds"
    text = (charts / f"{manifest['kind'].lower()}.yaml").read_text()
    definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
    (version,) = definition["versions"]
    assert manifest["apiVersion"] == f"{definition['group']}/{version['name']}"
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= dict.fromkeys(("apiVersion", "kind", "metadata"), True)
    validator = jsonschema.Draft202012Validator(schema)  # as it is: to check the schema itself takes 20 seconds
    assert [error.message for error in validator.iter_errors(manifest)] == []
    wrong = yaml.safe_load(yaml.safe_dump(manifest).replace("runAsNonRoot", "runAsNotRoot"))
    assert "'runAsNotRoot' was unexpected" in str(next(validator.iter_errors(wrong)))


@pytest.mark.parametrize("name", ["job.yaml", "network-policy.yaml"])
@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_objects_of_kubernetes_itself_are_what_its_schema_says(name: str, version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install '.[deploy]'")
    validator.validate(MANIFESTS[name], version, strict=True)


@pytest.mark.parametrize("name", containers())
def test_a_container_runs_a_command_that_there_is_with_flags_that_there_are(name: str) -> None:
    program, command, *args = containers()[name]["args"]
    if program == "semdedup":
        cli.main.commands[command].make_context(command, args, parent=click.Context(cli.main))
    else:
        main = {"worker": dask_worker.main, "scheduler": dask_scheduler.main}[command]
        main.make_context(command, args)


def test_images_names_and_ports_of_the_manifests_go_together() -> None:
    found = containers()
    assert len({one["image"] for one in found.values()}) == 1
    for file in ("dask-job.yaml", "dask-cluster.yaml"):
        manifest = MANIFESTS[file]
        spec = manifest["spec"]["cluster"]["spec"] if manifest["kind"] == "DaskJob" else manifest["spec"]
        service, (scheduler,) = spec["scheduler"]["service"], spec["scheduler"]["spec"]["containers"]
        assert service["selector"]["dask.org/cluster-name"] == manifest["metadata"]["name"]
        ports = {port["name"]: port["containerPort"] for port in scheduler["ports"]}
        assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
        mounted = {mount["name"] for mount in spec["worker"]["spec"]["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["worker"]["spec"]["volumes"]}
    cluster, policy = MANIFESTS["dask-cluster.yaml"]["metadata"]["name"], MANIFESTS["network-policy.yaml"]["spec"]
    (address,) = (one["value"] for one in found["job.yaml: run"]["env"])
    assert address == f"tcp://{cluster}-scheduler:{ports['tcp-comm']}"
    labels = MANIFESTS["job.yaml"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items(), "it is let to the scheduler"


# Conda

OTHER_NAMES = {"dask[dataframe]": "dask", "xxhash": "python-xxhash"}
LEFT_OUT = {"numkong"}


def parted(requirement: str) -> tuple[str, str]:
    """Name and versions of a requirement; conditions are left out, for the package is one for all platforms."""
    name, versions = re.fullmatch(r"([\w.\[\]-]+)\s*([^;]*).*", requirement).groups()  # type: ignore[union-attr]
    return name, versions.strip()


def test_the_conda_recipe_asks_for_what_the_project_asks_for() -> None:
    recipe = yaml.safe_load((DEPLOY / "conda" / "recipe.yaml").read_text())
    wanted = dict(parted(each) for each in PROJECT["dependencies"])
    assert wanted.keys() > LEFT_OUT
    found = dict(parted(each) for each in recipe["requirements"]["run"] if not each.startswith("python "))
    assert found == {OTHER_NAMES.get(name, name): value for name, value in wanted.items() if name not in LEFT_OUT}
    least, below = PROJECT["requires-python"].removeprefix(">=").split(",")
    assert recipe["context"] == {"version": PROJECT["version"], "python_min": least}
    assert f"python >=${{{{ python_min }}}},{below}" in recipe["requirements"]["run"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {parted(each) for each in build} <= {parted(each) for each in recipe["requirements"]["host"]}
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {what}" for name, what in PROJECT["scripts"].items()
    ]
    assert recipe["about"]["summary"] == PROJECT["description"]


def test_the_conda_recipe_is_one_for_rattler_build() -> None:
    rattler = pytest.importorskip("rattler_build", reason="pip install '.[deploy]'")
    (made,) = rattler.Stage0Recipe.from_file(DEPLOY / "conda" / "recipe.yaml").render()
    assert made.recipe.to_dict()["package"] == {"name": "semdedup", "version": PROJECT["version"]}


# Coiled


def test_keywords_of_the_example_for_coiled_are_coiled_s() -> None:
    coiled = pytest.importorskip("coiled", reason="Coiled is not installed, and its service is never asked")
    text = (DEPLOY / "coiled" / "run.py").read_text()
    call = re.search(r"coiled\.Cluster\((.*?)\n        \) as", text, re.S)
    assert call is not None
    assert set(re.findall(r"(\w+)=", call[1])) <= set(inspect.signature(coiled.Cluster).parameters)


def test_every_recipe_is_told_of_with_what_was_run() -> None:
    readme = (DEPLOY / "README.md").read_text()
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix not in (".md", ".dockerignore") and "__pycache__" not in path.parts:
            assert f"]({path.relative_to(DEPLOY)})" in readme, path
