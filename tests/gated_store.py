"""A real S3 server on this machine whose requests a test can hold, refuse or cut short.

moto looks whether an object is there, and then writes it: here one write waits for the other, so that of two
conditional puts at once one is refused, as S3 promises.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from botocore.loaders import JSONFileLoader
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

Answer = Iterable[bytes]
# Each client parses megabytes of JSON about the service, which takes longer than most tests: here once is enough.
_PARSED: dict[str, Any] = {}
_load_file = JSONFileLoader.load_file


def _load_once(self: JSONFileLoader, path: str) -> Any:
    if path not in _PARSED:
        _PARSED[path] = _load_file(self, path)
    return _PARSED[path]


# Method, path, and what would be done next; gives the answer.
Hook = Callable[[str, str, Callable[[], Answer], Callable[..., Any]], Answer]


class _Quiet(MotoRequestHandler):
    def log_request(self, *_: object) -> None:
        """Say nothing."""


class GatedStore:
    """The server and its one bucket.

    Attributes:
        hook: Called for each request in place of the server; None for none.
        requests: Method and path of each, in their order.
    """

    def __init__(self) -> None:
        self.hook: Hook | None = None
        self.requests: list[tuple[str, str]] = []
        self.bucket = f"shop-{uuid.uuid4().hex[:8]}"
        self._app = DomainDispatcherApplication(create_backend_app)
        self._writes = threading.Lock()
        self._client: Any = None

    @property
    def address(self) -> str:
        return f"s3://{self.bucket}/models"

    def client(self) -> Any:
        if self._client is None:
            self._client = boto3.session.Session().client("s3")
        return self._client

    def keys(self) -> list[str]:
        """Every object's key, below the prefix."""
        found = self.client().list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return sorted(item["Key"].removeprefix("models/") for item in found)

    def read(self, key: str) -> bytes:
        return self.client().get_object(Bucket=self.bucket, Key=f"models/{key}")["Body"].read()

    def overwrite(self, key: str, data: bytes) -> None:
        self.client().put_object(Bucket=self.bucket, Key=f"models/{key}", Body=data)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Answer:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))

        def go_on() -> Answer:
            if method not in {"PUT", "POST"}:
                return self._app(environ, start_response)
            with self._writes:
                return self._app(environ, start_response)

        if self.hook is None:
            return go_on()
        return self.hook(method, path, go_on, start_response)


def refuse(start_response: Callable[..., Any]) -> Answer:
    """Answer as S3 does when it is too busy."""
    start_response("503 Slow Down", [("Content-Type", "application/xml")])
    return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]


def cut_short(answer: Answer, after: int) -> Iterator[bytes]:
    """Send the first bytes of an answer, and then close the connection."""
    data = b"".join(answer)
    yield data[:after]
    raise ConnectionAbortedError


@contextmanager
def gated_store(port: int = 0) -> Iterator[GatedStore]:
    """Serve an empty store, and point boto3 at it.

    Args:
        port: Of 127.0.0.1; 0 for a free one.
    """
    store = GatedStore()
    server = make_server("127.0.0.1", port, store, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.delenv("AWS_PROFILE", raising=False)
        patch.delenv("AWS_MAX_ATTEMPTS", raising=False)
        patch.setattr(JSONFileLoader, "load_file", _load_once)
        try:
            store.client().create_bucket(Bucket=store.bucket)
            yield store
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
