"""The bucket that versions are published to and fetched from, through boto3.

Credentials, region and endpoint come from where boto3 always takes them (environment, ``~/.aws``, the machine's role);
``AWS_ENDPOINT_URL`` names another store that speaks S3. boto3 tries again, and waits longer each time, for what passes
by itself (5xx, "slow down", a connection that fails); ``AWS_MAX_ATTEMPTS`` says how often.
"""

from __future__ import annotations

import base64
import hashlib
import random
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from plumbline.files import sha256_of
from plumbline.published import MANIFEST, PublishedFile, PublishError, is_version, version_key
from plumbline.published_client import (
    ATTEMPTS,
    MISSING,
    TAKEN,
    TELL_EVERY_S,
    Tell,
    boto_errors,
    code_of,
    explain,
    is_broken_off,
    make_client,
)

# Of one part of an upload. A file that is larger goes up in parts: at most 10,000 of them, 160 GB.
PART_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


class Store:
    """A prefix of a bucket; keys are relative to it. Not for several threads at once."""

    def __init__(self, address: str, tell: Tell) -> None:
        """Nothing is asked of the store yet.

        Args:
            address: ``s3://bucket/prefix``.
            tell: Gets a line of progress now and then.

        Raises:
            PublishError: The address is none.
        """
        self.address = address.rstrip("/")
        self._bucket, self._prefix = split_address(address)
        self._tell = tell
        self._client: Any = None

    def where(self, key: str) -> str:
        """Return a key's whole address."""
        return f"s3://{self._bucket}/{self._prefix}{key}"

    def read(self, key: str) -> bytes | None:
        """Return a small object's bytes, or None where there is none.

        Raises:
            PublishError: The store refuses or cannot be reached.
        """
        try:
            return bytes(self._call("get_object", key)["Body"].read())
        except boto_errors() as error:
            if code_of(error) in MISSING:
                return None
            raise PublishError(f"{self.where(key)}: {explain(error)}") from error

    def versions(self, model: str) -> list[str]:
        """Return the versions of a model, the latest first; some may lack their manifest.

        Raises:
            PublishError: The store refuses or cannot be reached.
        """
        return sorted(filter(is_version, self._folders(f"{model}/")), key=version_key, reverse=True)

    def models(self) -> list[str]:
        """Return the names of all models, sorted.

        Raises:
            PublishError: The store refuses or cannot be reached.
        """
        return sorted(self._folders(""))

    def latest(self, model: str) -> str:
        """Return the highest version that has a manifest.

        Raises:
            PublishError: There is none.
        """
        for version in self.versions(model):
            if self._head(f"{model}/{version}/{MANIFEST}") is not None:
                return version
        raise PublishError(
            f"{self.where(model)}: no published version, expected one or more; correct the model's name or the address"
        )

    def download(self, key: str, file: PublishedFile, path: Path) -> None:
        """Bring an object to a path, going on with what an earlier try left in ``path.part``; check its hash.

        Raises:
            PublishError: It is not there, is not what its hash says, or the store cannot be reached.
        """
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            went_on = part.exists()
            try:
                self._append(key, file, part)
            except boto_errors() as error:
                if not is_broken_off(error) or attempt == ATTEMPTS:
                    raise PublishError(f"{self.where(key)}: {explain(error)}") from error
                self._tell(f"{file.path}: the connection broke; trying again")
                _wait(attempt)
                continue
            got = sha256_of(part)
            if got == file.sha256:
                part.replace(path)
                return
            part.unlink()
            if not went_on:  # else what was there may have been of another file
                raise PublishError(
                    f"{self.where(key)}: damaged, expected {file.size} bytes of sha256 {file.sha256}, got sha256 {got};"
                    " it was not used: restore the object, or fetch another version"
                )
        raise PublishError(f"{self.where(key)}: could not be read whole in {ATTEMPTS} tries; run it again")

    def _append(self, key: str, file: PublishedFile, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        if have >= file.size:
            if have == file.size and have:
                return
            part.unlink(missing_ok=True)
            have = 0
        from botocore.exceptions import ClientError

        try:
            answer = self._call("get_object", key, **({"Range": f"bytes={have}-"} if have else {}))
        except ClientError as error:
            if code_of(error) in ("InvalidRange", "416"):  # the object is shorter than it should be
                part.unlink()
                answer = self._call("get_object", key)
            else:
                raise
        # A store that does not know ranges sends it all.
        mode = "ab" if have and answer.get("ContentRange") and part.exists() else "wb"
        progress = _Progress(self._tell, file, have if mode == "ab" else 0)
        # Not `with answer["Body"]`: that gives urllib3's stream, whose errors are not boto3's.
        with part.open(mode) as out, closing(answer["Body"]) as body:
            for chunk in body.iter_chunks(_CHUNK_BYTES):
                out.write(chunk)
                progress.add(len(chunk))

    def put_new(self, key: str, content: Path | bytes, file: PublishedFile) -> bool:
        """Write an object that is not there yet; the store itself refuses where it is (If-None-Match).

        Args:
            key: Where.
            content: The file, or its bytes.
            file: Its size and hash: the store is told them, and must have got them.

        Returns:
            Whether it was written; False where an object stands there already, whatever it holds.

        Raises:
            PublishError: The store refuses, cannot be reached, or got other bytes; or the file is no more what it was.
        """
        put = self._put_parts if file.size > PART_BYTES and isinstance(content, Path) else self._put_whole
        for attempt in range(1, ATTEMPTS + 1):
            try:
                put(key, content, file)
            except FileNotFoundError as error:
                if not isinstance(content, Path) or content.exists():
                    raise
                raise PublishError(f"{content}: gone since it was hashed; publish again when nothing runs") from error
            except boto_errors() as error:
                code = code_of(error)
                # NoSuchUpload: the answer to our own completion was lost, and boto3 asked again.
                if code in TAKEN or (code == "NoSuchUpload" and self._head(key) is not None):
                    return False
                if code != "ConditionalRequestConflict" or attempt == ATTEMPTS:
                    raise PublishError(f"{self.where(key)}: {explain(error)}") from error
                _wait(attempt)  # another writer is at it: soon it is there, or not
            else:
                return True
        raise AssertionError

    def holds(self, key: str, file: PublishedFile, content: Path | bytes | None = None) -> bool:
        """Tell whether an object has the bytes that it should: by the store's own sha256, or else by reading it.

        Args:
            key: Where.
            file: Size and hash.
            content: For the sha256 that the store makes of the parts' hashes, where it was written in parts; not
                trusted where its own hash is not the file's.

        Raises:
            PublishError: The store refuses or cannot be reached.
        """
        head = self._head(key)
        if head is None or head["ContentLength"] != file.size:
            return False
        # Of an object in parts S3 says "<hash>-<parts>"; moto, as other stores may, leaves the number away.
        told = str(head.get("ChecksumSHA256", "")).partition("-")[0]
        if told and told == _base64(bytes.fromhex(file.sha256)):
            return True
        if told and isinstance(content, Path) and (told, file.sha256) == _sha256_of_parts(content):
            return True
        digest = hashlib.sha256()
        try:
            with closing(self._call("get_object", key)["Body"]) as body:
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    digest.update(chunk)
        except boto_errors() as error:
            raise PublishError(f"{self.where(key)}: {explain(error)}") from error
        return digest.hexdigest() == file.sha256

    def _put_whole(self, key: str, content: Path | bytes, file: PublishedFile) -> None:
        data = content.read_bytes() if isinstance(content, Path) else content
        _check_sent(hashlib.sha256(data).hexdigest(), file, content)
        # The store works it out itself, and refuses what was damaged on the way.
        checksum = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _base64(bytes.fromhex(file.sha256))}
        self._call("put_object", key, Body=data, IfNoneMatch="*", **checksum)

    def _put_parts(self, key: str, path: Path | bytes, file: PublishedFile) -> None:
        """Upload in parts. Not boto3's own transfer, which has no conditional upload (s3transfer 0.19)."""
        assert isinstance(path, Path)
        upload = self._call("create_multipart_upload", key, ChecksumAlgorithm="SHA256")["UploadId"]
        progress, parts, whole = _Progress(self._tell, file, 0), list[dict[str, Any]](), hashlib.sha256()
        try:
            with path.open("rb") as source:
                while data := source.read(PART_BYTES):
                    whole.update(data)
                    number, checksum = len(parts) + 1, _base64(hashlib.sha256(data).digest())
                    options = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": checksum}
                    done = self._call("upload_part", key, UploadId=upload, PartNumber=number, Body=data, **options)
                    parts.append({"ETag": done["ETag"], "PartNumber": number, "ChecksumSHA256": checksum})
                    progress.add(len(data))
            _check_sent(whole.hexdigest(), file, path)
            self._call(
                "complete_multipart_upload",
                key,
                UploadId=upload,
                MultipartUpload={"Parts": parts},
                IfNoneMatch="*",
            )
        except BaseException:
            try:  # parts that nobody completes are paid for
                self._call("abort_multipart_upload", key, UploadId=upload)
            except boto_errors():
                self._tell(f"{self.where(key)}: the parts of a broken upload stay there; let a lifecycle rule end them")
            raise

    def _head(self, key: str) -> dict[str, Any] | None:
        try:
            return dict(self._call("head_object", key, ChecksumMode="ENABLED"))
        except boto_errors() as error:
            if code_of(error) in MISSING:
                return None
            raise PublishError(f"{self.where(key)}: {explain(error)}") from error

    def _folders(self, key: str) -> list[str]:
        prefix = f"{self._prefix}{key}"
        try:
            pages = self._boto().get_paginator("list_objects_v2")
            found = pages.paginate(Bucket=self._bucket, Prefix=prefix, Delimiter="/")
            return [
                str(item["Prefix"]).removeprefix(prefix).rstrip("/")
                for page in found
                for item in page.get("CommonPrefixes", ())
            ]
        except boto_errors() as error:
            raise PublishError(f"{self.where(key)}: {explain(error)}") from error

    def _call(self, operation: str, key: str, **options: Any) -> Any:
        return getattr(self._boto(), operation)(Bucket=self._bucket, Key=f"{self._prefix}{key}", **options)

    def _boto(self) -> Any:
        if self._client is None:
            self._client = make_client(self._tell)
        return self._client


def split_address(address: str) -> tuple[str, str]:
    """Return the bucket and the prefix, which is empty or ends in a slash.

    Raises:
        PublishError: It does not begin with s3://, or there is no bucket in it.

    >>> split_address("s3://bucket/models"), split_address("s3://bucket")
    (('bucket', 'models/'), ('bucket', ''))
    """
    scheme, _, path = address.partition("://")
    bucket, _, prefix = path.partition("/")
    if scheme != "s3" or not bucket:
        raise PublishError(f"{address!r}: expected s3://bucket/prefix; correct the address")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


class _Progress:
    """Tells now and then how much of a file has gone through."""

    def __init__(self, tell: Tell, file: PublishedFile, done: int) -> None:
        self._tell, self._file, self._done = tell, file, done
        self._next = time.monotonic() + TELL_EVERY_S

    def add(self, count: int) -> None:
        self._done += count
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + TELL_EVERY_S
            self._tell(f"{self._file.path}: {self._done / 1e6:.0f} of {self._file.size / 1e6:.0f} MB")


def _wait(attempt: int) -> None:
    """Wait longer each time, and not all devices as long as each other."""
    time.sleep(random.random() * min(2**attempt, 20))  # noqa: S311


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def _check_sent(sha256: str, file: PublishedFile, content: Path | bytes) -> None:
    """Refuse bytes that are not what the version's manifest will say: under their name they could never be mended.

    Raises:
        PublishError: The file was written to since its hash was taken.
    """
    if sha256 != file.sha256:
        name = content if isinstance(content, Path) else file.path
        raise PublishError(
            f"{name}: changed since it was hashed, expected sha256 {file.sha256}, got {sha256}; publish again when"
            " nothing writes there"
        )


def _sha256_of_parts(path: Path) -> tuple[str, str]:
    """Return what S3 keeps of an object written in parts, the hash of their hashes, and the hex sha256 of the file."""
    digest, whole = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as source:
        while data := source.read(PART_BYTES):
            digest.update(hashlib.sha256(data).digest())
            whole.update(data)
    return _base64(digest.digest()), whole.hexdigest()
