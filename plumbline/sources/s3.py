"""The objects below a prefix of a bucket, through boto3.

Credentials, region and endpoint come from where boto3 always takes them (environment, ``~/.aws``, the machine's role);
``AWS_ENDPOINT_URL`` names another store that speaks S3. A prefix is a folder: ``s3://bucket/photos`` is
``s3://bucket/photos/``, and takes nothing from ``photos2/``.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from plumbline.errors import DatasetError
from plumbline.formats.reading import ReadFinding
from plumbline.sources.archive import is_archive
from plumbline.sources.names import admit, max_bytes

LAYOUT = "s3://bucket/prefix"

_SCHEME = "s3://"
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
# boto3 waits longer before each, and does so for what passes by itself: time-outs, 5xx, "slow down".
_ATTEMPTS = 3
# What the store answers, and what to do about it.
_ANSWERS = {
    "NoSuchBucket": "there is no such bucket; correct dataset.source",
    "AccessDenied": "access is denied; let these credentials list the bucket and read its objects",
    "403": "access is denied; let these credentials list the bucket and read its objects",
    "AllAccessDisabled": "access is denied; let these credentials list the bucket and read its objects",
    "InvalidAccessKeyId": "the access key is not known there; correct the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; correct the credentials",
    "ExpiredToken": "the credentials have expired; log in again",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "PreconditionFailed": "the object has changed since it was listed; run again",
    "NoSuchKey": "the object has gone since it was listed; run again",
    "InvalidObjectState": "the object is in an archive tier; restore it",
}


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    size: int
    etag: str


def takes(address: str) -> bool:
    """Say whether the address begins with s3://."""
    return address.startswith(_SCHEME)


def open_source(address: str) -> S3Source:
    """List a prefix; see `plumbline.sources.Kind`."""
    return S3Source(address)


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the prefix, which is empty or ends in a slash.

    Raises:
        DatasetError: There is no bucket in it, or it names an archive.

    >>> split_address("s3://bucket/photos"), split_address("s3://bucket")
    (('bucket', 'photos/'), ('bucket', ''))
    """
    bucket, _, path = address.removeprefix(_SCHEME).partition("/")
    path = path.strip("/")
    if not bucket:
        raise DatasetError(f"{address}: no bucket, expected s3://bucket/prefix; correct dataset.source")
    if is_archive(path):
        raise DatasetError(
            f"{address}: an archive in a bucket is not read in place, expected a prefix with plain files;"
            " download it and set dataset.source to the file, or unpack it to a prefix"
        )
    return bucket, f"{path}/" if path else ""


class S3Source:
    """See `plumbline.sources.Source`; threads may read from it, and share connections."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._bucket, self._prefix = split_address(address)
        self._lock = threading.Lock()
        self._client: tuple[int, Any] | None = None
        try:
            objects = list(self._list())
        except _boto_errors() as error:
            raise DatasetError(f"{address}: {_explain(error)}") from error
        if not objects:
            where = f"{_SCHEME}{self._bucket}/{self._prefix}"
            raise DatasetError(f"{address}: no object below {where}, expected images; correct dataset.source")
        self._objects, self._findings = admit(address, objects)
        self._files = {name: found.size for name, found in self._objects.items()}

    def files(self) -> Mapping[str, int]:  # noqa: D102 - as in the protocol, like all below
        return self._files

    def findings(self) -> list[ReadFinding]:  # noqa: D102
        return list(self._findings)

    def read(self, name: str) -> bytes:  # noqa: D102
        found = self._object(name)
        if found.size > max_bytes(name):
            raise OSError(errno.EFBIG, f"holds {found.size} bytes, expected at most {max_bytes(name)}")
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._get(found)
            except _boto_errors() as error:
                # boto3 tries again to get an answer, but not when the connection breaks in the middle of one.
                if attempt == _ATTEMPTS or not _is_broken_off(error):
                    raise OSError(_explain(error)) from error
        raise AssertionError

    def stamp(self, name: str) -> str:  # noqa: D102
        return self._object(name).etag

    def where(self, name: str) -> str:  # noqa: D102
        found = self._objects.get(name)
        return f"{_SCHEME}{self._bucket}/{found.key if found else self._prefix + name}"

    def group(self, name: str) -> str:  # noqa: D102, ARG002
        return ""

    def order(self, names: Iterable[str]) -> list[str]:  # noqa: D102
        return sorted(names)

    def _object(self, name: str) -> _Object:
        if name not in self._objects:
            raise FileNotFoundError(2, "no such object below the prefix", name)
        return self._objects[name]

    def _list(self) -> Iterator[tuple[str, _Object]]:
        pages = self._boto().get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        for page in pages:
            for item in page.get("Contents", ()):
                name = item["Key"].removeprefix(self._prefix)
                # Consoles make an empty object for a folder.
                if name and not name.endswith("/"):
                    yield name, _Object(item["Key"], item["Size"], item["ETag"].strip('"'))

    def _get(self, found: _Object) -> bytes:
        answer = self._boto().get_object(Bucket=self._bucket, Key=found.key, IfMatch=f'"{found.etag}"')
        # Not `with answer["Body"]`: that gives urllib3's stream, whose errors are not boto3's.
        with closing(answer["Body"]) as body:
            return body.read()

    def _boto(self) -> Any:
        """Return the client of this process: connections do not survive a fork."""
        import boto3
        from botocore.config import Config

        with self._lock:
            if self._client is None or self._client[0] != os.getpid():
                config = Config(
                    connect_timeout=_CONNECT_TIMEOUT_S,
                    read_timeout=_READ_TIMEOUT_S,
                    retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
                    max_pool_connections=32,
                )
                # A session of its own: boto3's default one is not for several threads.
                self._client = os.getpid(), boto3.session.Session().client("s3", config=config)
            return self._client[1]


def _boto_errors() -> tuple[type[Exception], ...]:
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    # ValueError: an endpoint that is no URL.
    return BotoCoreError, ClientError, Boto3Error, ValueError


def _is_broken_off(error: Exception) -> bool:
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

    return isinstance(error, IncompleteReadError | ReadTimeoutError | ResponseStreamingError)


def _explain(error: Exception) -> str:
    """Return what went wrong and what to do, in one line without a key or secret."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        return _ANSWERS.get(code, " ".join(f"the store answers {code}: {message}".split()))
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "no credentials, expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; set them"
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return (
            f"the store cannot be reached ({error}); check the network, and AWS_ENDPOINT_URL where it is not Amazon's"
        )
    return " ".join(str(error).split()) + "; check boto3's settings"
