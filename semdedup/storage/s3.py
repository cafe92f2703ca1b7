"""What S3 does beside what fsspec asks of every store: uploads in parts, and many objects in one request."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from semdedup.storage.stores import S3, container_of, store_of

PART_BYTES, MOST_PARTS = 16 << 20, 9_000
"""An object is uploaded in parts of so many bytes, of which S3 allows 10,000."""

PARTS_IN_FLIGHT = 2
"""Parts of a file that are uploaded at a time."""

KEYS_AT_ONCE = 1000
"""Objects that S3 deletes by one request."""


def whole_options(url: str, fs: Any) -> dict[str, Any]:
    """How `cat_file` of a file system gives a whole file by one request.

    Later versions of s3fs ask for its size first, to fetch parts of a large one side by side.
    """
    known = store_of(url) is S3 and "max_concurrency" in inspect.signature(fs._cat_file).parameters
    return {"max_concurrency": 1} if known else {}


def part_bytes(n_bytes: int) -> int:
    """Bytes of the parts that an object of about this size is uploaded in.

    >>> part_bytes(1 << 20) >> 20, part_bytes(1 << 40) >> 20
    (16, 116)
    """
    return max(PART_BYTES, -(-n_bytes // MOST_PARTS))


def upload_options(url: str, n_bytes: int) -> dict[str, Any]:
    """How `put_file` of a file system uploads a file of this size: s3fs by itself holds 10 parts of 50 MiB at a time.

    S3 gets a file of up to two parts as one, a larger one in parts. Memory: `PARTS_IN_FLIGHT` of them.
    """
    if store_of(url) is not S3:
        return {}
    return {"chunksize": part_bytes(n_bytes), "max_concurrency": PARTS_IN_FLIGHT}


def delete_objects(fs: Any, urls: Sequence[str]) -> dict[str, Exception]:
    """Delete up to `KEYS_AT_ONCE` objects of one bucket of S3 by one request; what could not be deleted, and why.

    (`fs.rm` does so as well, but reads paths with * ? [ in them as patterns, and tells nothing of what is left.)
    """
    from botocore.exceptions import ClientError

    keys = {fs.split_path(url)[1]: url for url in urls}
    wish = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
    answer = fs.call_s3("delete_objects", Bucket=fs.split_path(urls[0])[0], Delete=wish)
    failed = {keys[error["Key"]]: error for error in answer.get("Errors", ())}
    return {url: ClientError({"Error": error}, "DeleteObjects") for url, error in failed.items()}


def unfinished_uploads(fs: Any, url: str) -> list[tuple[str, str]]:
    """Uploads in parts below a folder of S3 that were not finished: URL of each object, and the upload's id."""
    bucket, prefix, _ = fs.split_path(url)
    wish = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
    found: list[tuple[str, str]] = []
    start: dict[str, str] = {}
    while True:
        answer = fs.call_s3("list_multipart_uploads", **wish, **start)
        listed = ((upload["Key"], upload["UploadId"]) for upload in answer.get("Uploads", ()))
        found += [(f"{container_of(url)}/{key}", upload_id) for key, upload_id in listed]
        if not answer.get("IsTruncated"):
            return found
        start = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


def abort_upload(fs: Any, url: str, upload_id: str) -> None:
    """Give up an upload in parts to S3; the store deletes its parts."""
    bucket, key, _ = fs.split_path(url)
    fs.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)
