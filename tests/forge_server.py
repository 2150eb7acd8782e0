"""A forge on loopback: the parts of GitHub's and GitLab's REST APIs that a poster uses, as they are documented.

Its state is plain attributes, to be looked at and changed by a test. `Forge.fail` makes routes answer otherwise.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from forge_routes_github import GithubRoutes
from forge_routes_gitlab import GitlabRoutes
from forge_state import REPOSITORY, TOKEN, Asked, Fault, RefusedError

__all__ = ["REPOSITORY", "TOKEN", "Forge", "forge_server"]


class Forge(GithubRoutes, GitlabRoutes):
    """Both forges."""

    def answer(self, method: str, target: str, headers: dict[str, str], data: bytes) -> tuple[int, Any, dict[str, str]]:
        """Answer one request."""
        parts = urlsplit(target)
        path, query = parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.lock:
            self.asked.append(Asked(method, path, query, _content(headers, data)))
            if headers.get("authorization") not in (f"token {TOKEN}", f"Bearer {TOKEN}"):
                message = "401 Unauthorized" if "/api/v4/" in path else "Bad credentials"
                raise RefusedError(401, message)
            for verb, pattern, work in [*self.github_routes(), *self.gitlab_routes()]:
                found = re.fullmatch(pattern, path)
                if verb == method and found:
                    arguments = [
                        int(part) if part.isdigit() and len(part) < 12 else unquote(part) for part in found.groups()
                    ]
                    status, value = work(*arguments, self.asked[-1])
                    return self._paged(status, value, path, query)
        raise RefusedError(404, "Not Found")

    def _paged(self, status: int, value: Any, path: str, query: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        if not isinstance(value, list):
            return status, value, {}
        size, page = min(int(query.get("per_page", 30)), self.per_page_most), int(query.get("page", 1))
        shown = value[(page - 1) * size : page * size]
        headers = {"X-Page": str(page), "X-Per-Page": str(size), "X-Next-Page": "", "X-Total": str(len(value))}
        if page * size < len(value):
            following = f"{self.url}{path}?{urlencode({**query, 'per_page': size, 'page': page + 1})}"
            headers.update({"Link": f'<{following}>; rel="next"', "X-Next-Page": str(page + 1)})
        return status, shown, headers


def _content(headers: dict[str, str], data: bytes) -> Any:
    if not data:
        return None
    kind = headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        return json.loads(data)
    for part in BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + data).get_payload():
        if part.get_param("name", header="content-disposition") == "file":  # type: ignore[union-attr]
            return part.get_filename(), part.get_payload(decode=True)  # type: ignore[union-attr]
    return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    forge: Forge

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        data = self.rfile.read(int(headers.get("content-length", 0)))
        fault = self._fault()
        if fault and not fault.after:
            self._fail(fault, headers, data)
            return
        try:
            status, value, extra = self.forge.answer(self.command, self.path, headers, data)
        except RefusedError as refused:
            status, extra = refused.status, refused.headers
            value = refused.message if _is_github_fault(refused.message) else {"message": refused.message}
        if fault:
            self._fail(fault, headers, None)
            return
        self._send(status, value, extra)

    def _fault(self) -> Fault | None:
        for fault in self.forge.faults:
            if fault.times > 0 and fault.method == self.command and re.search(fault.path, self.path):
                fault.times -= 1
                return fault
        return None

    def _fail(self, fault: Fault, headers: dict[str, str], data: bytes | None) -> None:
        self.forge.released.wait(fault.wait_s)
        if data is not None:
            content = None if not data else _content(headers, data)
            self.forge.asked.append(Asked(self.command, urlsplit(self.path).path, {}, content))
        if fault.status is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._send(fault.status, {"message": fault.message}, fault.headers)

    def _send(self, status: int, value: Any, headers: dict[str, str]) -> None:
        is_file = isinstance(value, bytes)
        content = value if is_file else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if is_file else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - as http.server has it

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def _is_github_fault(message: Any) -> bool:
    return isinstance(message, dict) and "message" in message


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


@contextmanager
def forge_server() -> Iterator[Forge]:
    """Serve an empty forge."""
    forge = Forge()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"forge": forge}))
    forge.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield forge
    finally:
        forge.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
