"""moto's S3 server in a process of its own, which counts what it is asked, and can answer as late as a distant one.

Started by `CountingStore`; `python benchmarks/counting_store.py` prints its port and serves until it is ended.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, cast

import psutil

CONTROL = "/-/control"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    # Else boto3 asks the network whether this machine has a role in a cloud.
    "AWS_EC2_METADATA_DISABLED": "true",
}

Respond = Callable[..., Any]


class Counted:
    """A WSGI application around another one that counts requests and their bytes."""

    def __init__(self, application: Callable[[dict[str, Any], Respond], Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._delay_s = 0.0

    def __call__(self, environ: dict[str, Any], start_response: Respond) -> Iterable[bytes]:
        """Answer; the control path sets the delay and returns the counts since it was last asked."""
        if environ["PATH_INFO"] == CONTROL:
            with self._lock:
                self._delay_s = float(environ["QUERY_STRING"] or self._delay_s)
                counts, self._counts = self._counts, Counter()
            return _reply(start_response, json.dumps(counts).encode())
        if self._delay_s:
            time.sleep(self._delay_s)
        method = environ["REQUEST_METHOD"]
        is_list = method == "GET" and "list-type" in environ["QUERY_STRING"]
        sent = int(environ.get("HTTP_X_AMZ_DECODED_CONTENT_LENGTH") or environ.get("CONTENT_LENGTH") or 0)

        def respond(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
            with self._lock:
                self._counts["LIST" if is_list else method] += 1
                self._counts["bytes_in"] += sent
                self._counts["bytes_out"] += 0 if method == "HEAD" else sum(lengths)
                self._counts["refused"] += status.startswith("5")
            return start_response(status, headers, *more)

        return self._application(environ, respond)


def _reply(start_response: Respond, body: bytes) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


class CountingStore:
    """An empty store on loopback."""

    def __enter__(self) -> CountingStore:
        # With a buffer this large, moto holds every object in memory, and no disk is measured but DVC's.
        environment = {**os.environ, "MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": str(1 << 30)}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise SystemExit(f"error: the S3 server ended with {self._process.wait()}; run {__file__} by hand")
        self.url = f"http://127.0.0.1:{port}"
        self._usage = psutil.Process(self._process.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket; moto does not look at signatures."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT")):  # noqa: S310 - loopback
            pass

    def delay(self, seconds: float) -> None:
        """Let every answer come so much later."""
        self._control(f"{seconds}")

    def counts(self) -> Counter[str]:
        """Return how many requests of each method came, and how many bytes, since this was last asked."""
        return Counter(self._control(""))

    def cpu_s(self) -> float:
        """Return the server's own CPU seconds so far."""
        times = self._usage.cpu_times()
        return cast(float, times.user + times.system)

    def _control(self, query: str) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}{CONTROL}?{query}") as answer:  # noqa: S310 - loopback
            return cast(dict[str, int], json.load(answer))


def serve() -> None:
    """Serve on a free port, which is printed."""
    from moto.moto_server.werkzeug_app import create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"  # connections are kept, as S3 keeps them
        # Else an answer's body waits 40 ms for the acknowledgement of its head.
        disable_nagle_algorithm = True

        def log_request(self, *_: Any) -> None:
            """Say nothing."""

    # moto's S3 alone: with all of AWS, half of a request's time goes into finding out which service is meant.
    application = Counted(create_backend_app("s3"))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    print(server.port, flush=True)  # noqa: T201 - for the parent
    server.serve_forever()


if __name__ == "__main__":
    serve()
