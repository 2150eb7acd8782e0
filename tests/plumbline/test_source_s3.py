"""Reading the objects below a prefix from a real server that speaks S3."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from object_store import fill_bucket, object_store

from plumbline.errors import DatasetError
from plumbline.faults import UNSAFE_MEMBER, UNSAFE_NAME
from plumbline.sources import open_source


@pytest.fixture(scope="module", autouse=True)
def store():
    with object_store():
        fill_bucket(
            "shop",
            {
                "photos/": b"",
                "photos/a.jpg": b"a",
                "photos/deep/b.jpg": b"bb",
                "photos/deep/": b"",
                "photos/.hidden/c.jpg": b"c",
                "photos2/d.jpg": b"d",
                "top.jpg": b"t",
            },
        )
        yield


def client():
    return boto3.session.Session().client("s3")


@pytest.mark.parametrize("address", ["s3://shop/photos", "s3://shop/photos/"])
def test_a_prefix_is_a_folder(address):
    source = open_source(address)
    assert dict(source.files()) == {"a.jpg": 1, "deep/b.jpg": 2}
    assert source.read("deep/b.jpg") == b"bb"
    assert source.where("deep/b.jpg") == "s3://shop/photos/deep/b.jpg"
    assert not source.findings()


def test_a_whole_bucket():
    assert {"top.jpg", "photos/a.jpg", "photos2/d.jpg"} == set(open_source("s3://shop").files()) - {"photos/deep/b.jpg"}


def test_more_than_one_page_is_listed_and_threads_may_read(monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")
    fill_bucket("many", {f"all/{k:04d}.txt": str(k).encode() for k in range(53)})
    source = open_source("s3://many/all")
    assert list(source.files()) == [f"{k:04d}.txt" for k in range(53)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, source.files())) == [str(k).encode() for k in range(53)]


def test_an_object_that_changed_or_went_is_not_read():
    fill_bucket("moving", {"p/a.jpg": b"old", "p/b.jpg": b"b"})
    source = open_source("s3://moving/p")
    client().put_object(Bucket="moving", Key="p/a.jpg", Body=b"new")
    client().delete_object(Bucket="moving", Key="p/b.jpg")
    with pytest.raises(OSError, match="has changed since it was listed"):
        source.read("a.jpg")
    with pytest.raises(OSError, match="has gone since it was listed"):
        source.read("b.jpg")
    assert open_source("s3://moving/p").stamp("a.jpg") != source.stamp("a.jpg")


def test_keys_that_are_no_file_names_are_findings():
    keys = ["p/good.jpg", "p/../../up.jpg", "p//rooted.jpg", "p/C:drive.jpg", "p/back\\slash.jpg", "p/x.jpg/below.jpg"]
    fill_bucket("odd", dict.fromkeys([*keys, "p/x.jpg", "p/bell\x07.jpg", f"p/{'n' * 300}.jpg"], b"1"))
    source = open_source("s3://odd/p")
    assert list(source.files()) == ["good.jpg", "x.jpg"]
    assert sorted(f.code for f in source.findings()) == [UNSAFE_MEMBER] * 5 + [UNSAFE_NAME] * 2
    assert {f.source_file for f in source.findings()} == {"s3://odd/p"}


def test_an_object_with_empty_parts_in_its_key_is_read_by_that_key():
    fill_bucket("slashes", {"p/a//b.jpg": b"b"})
    source = open_source("s3://slashes/p")
    assert source.read("a/b.jpg") == b"b"
    assert source.where("a/b.jpg") == "s3://slashes/p/a//b.jpg"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("s3://absent/photos", "no such bucket"),
        ("s3://shop/absent", "no object below s3://shop/absent/"),
        ("s3://shop/photo", "no object below s3://shop/photo/"),
        ("s3://shop/photos.zip", "download it"),
        ("s3:///photos", "no bucket"),
        ("s3://Not_A_Bucket!/photos", "Invalid bucket name"),
    ],
)
def test_what_cannot_be_opened_is_refused(address, text):
    with pytest.raises(DatasetError, match=text) as caught:
        open_source(address)
    assert str(caught.value).startswith(address)
    assert "\n" not in str(caught.value)


def test_no_credentials(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(DatasetError, match="no credentials, expected AWS_ACCESS_KEY_ID"):
        open_source("s3://shop/photos")


def test_a_store_that_cannot_be_reached(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(DatasetError, match="cannot be reached"):
            open_source("s3://shop/photos")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "no url")
    with pytest.raises(DatasetError, match="no url"):
        open_source("s3://shop/photos")


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that makes a server answer as it is told the only store there is."""
    servers = []

    def start(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *args):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{servers[-1].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def send(handler, status, body, length=None):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def test_a_store_that_denies(scripted):
    scripted(lambda handler: send(handler, 403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"))
    with pytest.raises(DatasetError, match="access is denied"):
        open_source("s3://shop/photos")


LISTING = b"""<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>p/a.jpg</Key><Size>10</Size>
<ETag>"1"</ETag></Contents></ListBucketResult>"""


@pytest.mark.parametrize(("broken", "is_read"), [(2, True), (99, False)])
def test_a_connection_that_breaks_off_is_tried_again(scripted, broken, is_read):
    answers = iter([False] * broken + [True] * 99)

    def answer(handler):
        if "list-type" in handler.path:
            send(handler, 200, LISTING)
        else:
            send(handler, 200, b"0123456789" if next(answers) else b"0123", length=10)

    scripted(answer)
    source = open_source("s3://shop/p")
    if is_read:
        assert source.read("a.jpg") == b"0123456789"
    else:
        with pytest.raises(OSError, match="Connection broken"):
            source.read("a.jpg")
