"""Faults of a disk, a network or a store: which of them pass, and how what met one is tried again.

Such a fault says nothing about the content of a file. Where it may pass, the operation is repeated with growing pauses;
where it lasts, a `StorageError` ends the run, which keeps what it has done.
"""

from __future__ import annotations

import errno
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from semdedup.errors import StorageError

PAUSES_S = (0.1, 0.5, 2.0)
"""Seconds before the second attempt, the third, and so on. The object stores' own clients retry below this."""

PASSING_ERRNOS = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EREMOTEIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "EMFILE", "ENFILE", "ENOTEMPTY"),
        *("ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "EPIPE", "ESHUTDOWN"),
        *("ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
)

PASSING_CODES = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "RequestTimeTooSkewed"),
        *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "429"),
        *("InternalError", "ServiceUnavailable", "RequestTimeout", "408", "500", "502", "503", "504"),
    }
)
"""Codes of an object store's answer: credentials that are renewed outside, throttling, a server in trouble."""

REFUSING_CODES = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "401", "403"})
"""Codes of an answer to credentials that are missing, wrong, or not enough."""

UNKNOWN_CODES = frozenset({"NotImplemented", "MethodNotAllowed", "MalformedXML", "405", "501"})
"""Codes of an answer to an operation that a store does not have, or not in this form."""

STORE_MODULES = frozenset(
    {
        *("botocore", "aiobotocore", "s3fs", "gcsfs", "google", "adlfs", "azure", "huggingface_hub"),
        *("aiohttp", "httpx", "httpx2", "httpcore", "urllib3", "requests"),
    }
)
"""Packages that talk to a store. Their errors are those of the store, and so are Python's own that they raise."""

REMOTE_MODULES = STORE_MODULES | {"fsspec"}
"""Packages whose errors are those of a store, whatever class they derive from."""

PASSING_CLASSES = frozenset(
    {
        *(("azure", "ServiceRequestError"), ("azure", "ServiceResponseError"), ("gcsfs", "ChecksumError")),
        *(("google", "TransportError"), ("httpx", "TransportError"), ("httpx2", "TransportError")),
        *(("requests", "ConnectionError"), ("requests", "Timeout"), ("urllib3", "HTTPError")),
    }
)
"""Errors, by package and class, of a connection that broke or was not made."""

WITHOUT_CREDENTIALS = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError"),
        *("DefaultCredentialsError", "RefreshError", "CredentialUnavailableError", "ClientAuthenticationError"),
        *("LocalTokenNotFoundError", "RepositoryNotFoundError", "GatedRepoError", "AzureSigningError"),
    }
)
"""Classes of errors where there are no credentials, or none that can be used."""

P = ParamSpec("P")
T = TypeVar("T")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, from the outside in."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_storage_fault(error: BaseException) -> bool:
    """Whether an error comes from the disk, the network or the store rather than from what a file contains.

    PyArrow gives the error number of a failed system call and none for damaged content.
    """
    if isinstance(error, StorageError | ConnectionError | TimeoutError | FileNotFoundError | PermissionError):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return True
    return _package(type(error)) in REMOTE_MODULES or _raised_by(error) in STORE_MODULES


def is_passing(error: BaseException) -> bool:
    """Whether the same operation may succeed in a moment, or with credentials that are renewed meanwhile."""
    for cause in chain(error):
        if isinstance(cause, StorageError):
            return cause.passing
        if _code(cause) in PASSING_CODES or isinstance(cause, ConnectionError | TimeoutError):
            return True
        if isinstance(cause, OSError) and cause.errno in PASSING_ERRNOS:
            return True
        if any((_package(kind), kind.__name__) in PASSING_CLASSES for kind in type(cause).__mro__):
            return True
        if type(cause).__module__.startswith(("aiohttp", "botocore.exceptions")) and _code(cause) is None:
            return type(cause).__name__ not in {*WITHOUT_CREDENTIALS, "ParamValidationError"}
    return False


def is_refusal(error: BaseException) -> bool:
    """Whether a store says that the credentials are missing, wrong, or not enough."""
    return any(
        isinstance(cause, PermissionError)
        or _code(cause) in REFUSING_CODES
        or type(cause).__name__ in WITHOUT_CREDENTIALS
        or str(cause).startswith("Forbidden: ")  # an OSError of gcsfs
        for cause in chain(error)
    )


def is_absence(error: BaseException) -> bool:
    """Whether a store says that something is not there."""
    return isinstance(error, FileNotFoundError) or _code(error) in ("404", "NoSuchBucket")


def is_unknown_operation(error: BaseException) -> bool:
    """Whether a store says that it does not know what it is asked to do."""
    return any(_code(cause) in UNKNOWN_CODES for cause in chain(error))


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _raised_by(error: BaseException) -> str:
    """The package of the innermost function that an error went through."""
    innermost = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    return "" if innermost is None else str(innermost.tb_frame.f_globals.get("__name__", "")).partition(".")[0]


def _code(error: BaseException) -> str | None:
    """The code of a store's answer: the name that S3 gives it, else the HTTP status; None where there was no answer."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):
        code = response.get("Error", {}).get("Code")
    else:
        places = [(error, "status_code"), (error, "status"), (error, "code"), (response, "status_code")]
        found = (getattr(place, name, None) for place, name in places)
        code = next((value for value in found if isinstance(value, int | str) and not isinstance(value, bool)), None)
    return None if code is None else str(int(code) if isinstance(code, int) else code)


def with_retries(operation: Callable[[], T]) -> T:
    """Call an operation; where a fault that may pass is met, pause and call it again.

    Being done twice must do no harm. Takes at most the sum of `PAUSES_S` longer than the operation itself: a fault that
    outlasted the attempts of an operation within this one is not tried again.

    The clients of stores try again themselves, with pauses. Of S3 a request that is refused (503) or whose connection
    breaks each time ends after two to four minutes, of up to 250 attempts (measured); one that is never answered takes
    15 s an attempt, an hour for a read. ``config_kwargs`` in ``storage_options`` change that.
    """
    for pause_s in PAUSES_S:
        try:
            return operation()
        except StorageError as error:
            if error.lasting or not is_passing(error):
                raise
        time.sleep(pause_s)
    try:
        return operation()
    except StorageError as error:
        error.lasting = True
        raise


def repeated(function: Callable[P, T]) -> Callable[P, T]:
    """Give a function the retries of `with_retries`."""

    @functools.wraps(function)
    def repeat(*args: P.args, **kwargs: P.kwargs) -> T:
        return with_retries(lambda: function(*args, **kwargs))

    return repeat
