"""The stores that are known by name: what each needs, what it calls things, and what helps where it says no."""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import fsspec
import fsspec.asyn

from semdedup.errors import ParameterError
from semdedup.extras import pip_install


@dataclass(frozen=True)
class Store:
    """A kind of store.

    Attributes:
        protocols: how its paths begin.
        package: the package that reaches it, by its name in the registry.
        extra: the extra of semdedup that installs that; empty where semdedup always does.
        container: what it calls the place that all paths are in.
        credentials: how to give it credentials, as a sentence.
        read_only: a run cannot write to it: files appear there by commits, not one by one.
    """

    protocols: Set[str]
    package: str
    extra: str
    container: str
    credentials: str
    read_only: bool = False


S3 = Store(
    frozenset({"s3", "s3a"}),
    "s3fs",
    "",
    "bucket",
    'Credentials: --profile NAME, or storage_options {"profile": "NAME"}; {"anon": true} for a public bucket.',
)
GCS = Store(
    frozenset({"gs", "gcs"}),
    "gcsfs",
    "gcs",
    "bucket",
    "Credentials: gcloud auth application-default login, or storage_options "
    '{"token": "/path/of/key.json"}; {"token": "anon"} for a public bucket.',
)
AZURE = Store(
    frozenset({"az", "abfs", "abfss"}),
    "adlfs",
    "azure",
    "container",
    'Credentials: storage_options {"account_name": "…", "account_key": "…"} or {"connection_string": "…"}; with '
    '{"account_name": "…", "anon": false} those of az login.',
)
HF = Store(
    frozenset({"hf"}),
    "huggingface_hub",
    "hf",
    "repository",
    'Credentials: hf auth login, or storage_options {"token": "hf_…"}.',
    read_only=True,
)
STORES = (S3, GCS, AZURE, HF)
FLAT = (GCS, AZURE, HF)
"""Stores of which all files below a folder are asked for at once: a request for each folder would be more."""

AZURE_HOSTS = (".dfs.core.windows.net", ".blob.core.windows.net")


def store_of(url: str) -> Store | None:
    """The store that a URL lies in, if it is one of these."""
    protocol = url.partition("://")[0]
    return next((store for store in STORES if protocol in store.protocols), None)


def container_of(url: str) -> str:
    """The bucket, container or repository of a URL, as a URL."""
    protocol, _, rest = url.partition("://")
    parts = rest.split("/")
    if protocol == "hf":
        return f"{protocol}://{'/'.join(parts[: 3 if parts[0] in ('datasets', 'spaces', 'buckets') else 2])}"
    return f"{protocol}://{parts[0]}"


def split_account(protocol: str, rest: str) -> tuple[str, dict[str, str]]:
    """The rest of an Azure URL without the account, which Azure writes into it, and the account as an option.

    >>> split_account("abfss", "clips@team.dfs.core.windows.net/emb")
    ('clips/emb', {'account_name': 'team'})
    """
    head, slash, tail = rest.partition("/")
    container, _, host = head.partition("@")
    suffix = next((suffix for suffix in AZURE_HOSTS if host.endswith(suffix)), "")
    if protocol not in AZURE.protocols or not suffix or not container or ":" in container:
        return rest, {}
    return container + slash + tail, {"account_name": host.removesuffix(suffix)}


def stamp_of(entry: Mapping[str, Any]) -> str:
    """What an entry of a listing says that changes with the content of a file."""
    return str(next((entry[name] for name in STAMPS if entry.get(name)), None))


STAMPS = ("ETag", "etag", "generation", "blob_id", "xet_hash", "md5Hash", "LastModified", "last_modified", "mtime")
"""Names of it: of S3, of Azure, of GCS, of Hugging Face; the others give a time."""


def check_package(protocol: str) -> None:
    """Refuse a protocol that is not known, or whose package is not there.

    Raises:
        ParameterError: with what to install.
    """
    store = store_of(f"{protocol}://")
    if store is None and protocol not in fsspec.available_protocols():
        raise ParameterError(
            f"a path has the protocol {protocol!r}, which is not known; known are s3, gs, az, hf and others of fsspec"
        )
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:  # ValueError: a name that its package makes known to fsspec
        if store is not None and store.extra:
            needed = f"{store.package}: {pip_install(store.extra)}"
        else:
            needed = f"a package that is not there: {error}"
        raise ParameterError(f"{protocol}:// needs {needed}") from None


def await_copy(fs: Any, url: str) -> None:
    """Wait until an object that was copied to is complete: Azure may copy in the background.

    Raises:
        OSError: it gave up.
    """
    if store_of(url) is not AZURE:
        return
    container, blob, _ = fs.split_path(url)
    client = fs.service_client.get_blob_client(container, blob)
    while (status := fsspec.asyn.sync(fs.loop, client.get_blob_properties).copy.status) == "pending":
        time.sleep(0.2)
    if status not in (None, "success"):
        raise OSError(errno.EIO, f"the copy ended as {status}", url)


def lance_options(url: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Options of fsspec as Lance calls them, which has a client of its own for each store.

    What is not among `LANCE_OPTIONS` is not passed on: Lance finds other credentials in the environment.
    """
    flat = {**options, **dict(options.get("client_kwargs") or {})}
    store = store_of(url)
    if store is None:
        return {}
    names = LANCE_OPTIONS.get(store.package, {})
    found = {theirs: str(flat[ours]) for ours, theirs in names.items() if isinstance(flat.get(ours), str)}
    if any(value.startswith("http://") for value in found.values()):
        found["allow_http"] = "true"
    return found


LANCE_OPTIONS = {
    "s3fs": {
        **{"key": "aws_access_key_id", "secret": "aws_secret_access_key", "token": "aws_session_token"},
        **{"endpoint_url": "aws_endpoint", "region_name": "aws_region"},
    },
    "gcsfs": {"token": "google_service_account"},
    "adlfs": {
        **{"account_name": "azure_storage_account_name", "account_key": "azure_storage_account_key"},
        **{"sas_token": "azure_storage_sas_token"},
    },
}
"""By the package that fsspec uses: names of options, and those that Lance has for them."""


def redacted(text: str, options: Mapping[str, Any]) -> str:
    """A text without the credentials among options: other libraries tell a token that they take for a path."""
    for secret in sorted(_secrets(options), key=len, reverse=True):
        text = text.replace(secret, "…")
    return text


def _secrets(options: Mapping[str, Any]) -> set[str]:
    found: set[str] = set()
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= _secrets(value)
        elif isinstance(value, str) and any(word in str(name).lower() for word in SECRET_WORDS):
            found |= {value, *(part.partition("=")[2] for part in value.split(";") if part.lower().find("key=") >= 0)}
    return {secret for secret in found if len(secret) >= 6}


SECRET_WORDS = ("key", "secret", "token", "password", "credential", "connection_string", "sas")
"""What the names of options that hold credentials have in them."""
