"""Writing a version into a real S3 server, and what happens when that goes wrong."""

from __future__ import annotations

import hashlib
import socket
import threading

import pytest
from gated_store import cut_short, gated_store, refuse
from published_version import make_version, publish_version

from plumbline import published_store
from plumbline.published import PublishedFile, PublishError, to_bytes
from plumbline.published_store import Store, split_address
from plumbline.published_upload import check_refuses, is_published, upload, upload_manifest


@pytest.fixture
def shop():
    with gated_store() as store:
        yield store


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return make_version(tmp_path_factory.mktemp("version"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """The same version with other content."""
    return make_version(tmp_path_factory.mktemp("other"), gain=20.0).changed(git_commit="2" * 40)


@pytest.fixture
def quick(monkeypatch):
    """Waits between tries are short."""
    monkeypatch.setattr(published_store, "_wait", lambda attempt: None)


def described(data: bytes, path: str = "model.bin") -> PublishedFile:
    return PublishedFile(path, len(data), hashlib.sha256(data).hexdigest())


def objects(shop) -> dict[str, bytes]:
    return {key: shop.read(key) for key in shop.keys()}  # noqa: SIM118 - a store is no dict


def test_the_manifest_comes_last_and_after_every_file(shop, version):
    publish_version(Store(shop.address, print), version)
    put = [path.rpartition("/models/")[2] for method, path in shop.requests if method == "PUT" and "/models/" in path]
    expected = [f"signs/v1.0.0/{file.key}" for file in version.manifest.files()]
    assert put == [*expected, "signs/v1.0.0/manifest.json"]
    assert len(expected) == 5
    assert shop.read("signs/v1.0.0/manifest.json") == to_bytes(version.manifest)
    for file in version.manifest.files():
        assert hashlib.sha256(shop.read(f"signs/v1.0.0/{file.key}")).hexdigest() == file.sha256


def test_the_same_again_changes_nothing(shop, version):
    store = Store(shop.address, print)
    publish_version(store, version)
    before = objects(shop)
    assert not any(upload(store, version.manifest, version.files, file) for file in version.manifest.files())
    assert not upload_manifest(store, version.manifest)
    assert is_published(store, version.manifest)
    assert objects(shop) == before


def test_another_content_is_refused_and_leaves_the_published_one_whole(shop, version, other):
    store = Store(shop.address, print)
    publish_version(store, version)
    before = objects(shop)
    with pytest.raises(PublishError, match=r"v1\.0\.0 is published already, from commit 111111111111.*new version"):
        is_published(store, other.manifest)
    # Even where the look before was too early.
    with pytest.raises(PublishError, match="is published already"):
        publish_version(store, other)
    after = objects(shop)
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("changed", ["targets", "files", "records"])
def test_what_is_other_is_told(shop, tmp_path, version, changed):
    store = Store(shop.address, print)
    publish_version(store, version)
    targets = dict(version.manifest.targets)
    if changed == "targets":
        del targets["onnx-fp32"]
    elif changed == "files":
        targets = dict(make_version(tmp_path, gain=9.0).manifest.targets)
    now = version.changed(**({"recommended": {}} if changed == "records" else {"targets": targets}))
    said = {"targets": "with the targets", "files": "with other files of onnx-fp32", "records": "with other records"}
    with pytest.raises(PublishError, match=said[changed]):
        is_published(store, now.manifest)


def test_after_a_kill_half_way_the_same_or_another_content_can_be_published(shop, version, other):
    store = Store(shop.address, print)
    for file in list(version.manifest.files())[:3]:
        upload(store, version.manifest, version.files, file)
    assert not is_published(store, other.manifest)
    publish_version(store, other)
    assert is_published(store, other.manifest)


def test_of_two_publishers_at_once_exactly_one_wins(shop, version, other):
    both_are_there = threading.Barrier(2)
    ended: dict[str, object] = {}

    def hold(method, path, go_on, start_response):
        if method == "PUT" and path.endswith("manifest.json"):
            both_are_there.wait(60)  # all files of both are written by now
        return go_on()

    def publisher(name, content):
        try:
            publish_version(Store(shop.address, print), content)
            ended[name] = "won"
        except PublishError as error:
            ended[name] = error

    shop.hook = hold
    contents = {"one": version, "two": other}
    threads = [threading.Thread(target=publisher, args=item) for item in contents.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shop.hook = None
    (winner,) = [name for name, end in ended.items() if end == "won"]
    (refused,) = [end for end in ended.values() if end != "won"]
    assert "is published already" in str(refused)
    store = Store(shop.address, print)
    assert shop.read("signs/v1.0.0/manifest.json") == to_bytes(contents[winner].manifest)
    assert all(store.holds(f"signs/v1.0.0/{file.key}", file) for file in contents[winner].manifest.files())


def test_a_store_that_refuses_for_a_while_is_asked_again(shop, version):
    left = {"put": 3, "get": 2}

    def busy(method, path, go_on, start_response):
        kind = "put" if method == "PUT" else "get"
        left[kind] -= 1
        return refuse(start_response) if left[kind] >= 0 else go_on()

    told: list[str] = []
    shop.hook = busy
    store = Store(shop.address, told.append)
    publish_version(store, version)
    shop.hook = None
    assert is_published(store, version.manifest)
    assert "the store answers 503 (try 1)" in told


def test_a_store_that_cannot_be_reached_for_a_while_is_asked_again(version):
    with gated_store() as early:  # moto keeps its buckets when its server ends
        address = early.address
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told: list[str] = []
    is_told = threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        is_told.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        found: list[list[str]] = []
        thread = threading.Thread(target=lambda: found.append(Store(address, tell).versions("signs")))
        thread.start()
        assert is_told.wait(60)  # the first try has failed
        with gated_store(port):
            thread.join()
    assert found == [[]]
    assert told[0] == "the store does not answer (try 1)"


def test_a_store_that_never_answers_ends_in_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(PublishError, match=r"^s3://shop/models/a: the store cannot be reached .*AWS_ENDPOINT_URL"):
        Store("s3://shop/models", print).read("a")


def test_a_write_that_meets_another_is_tried_again(shop, quick, tmp_path):
    """S3 answers so where it cannot tell yet who of two is first."""
    answers = []

    def meet(method, path, go_on, start_response):
        if method != "PUT" or answers:
            return go_on()
        answers.append("409")
        start_response("409 Conflict", [("Content-Type", "application/xml")])
        return [b"<Error><Code>ConditionalRequestConflict</Code><Message>conflict</Message></Error>"]

    shop.hook = meet
    assert Store(shop.address, print).put_new("m/a.txt", b"text", described(b"text"))
    assert answers == ["409"]


def test_where_the_store_keeps_no_hash_the_bytes_are_read_back(shop):
    store, file = Store(shop.address, print), described(b"text")
    shop.overwrite("m/a.txt", b"text")  # without a checksum
    shop.requests.clear()
    assert store.holds("m/a.txt", file)
    assert [method for method, _ in shop.requests] == ["HEAD", "GET"]
    shop.overwrite("m/a.txt", b"tex?")
    assert not store.holds("m/a.txt", file)
    assert not store.holds("m/b.txt", file)


def test_a_store_that_writes_over_is_found_out(shop, version):
    store = Store(shop.address, print)
    publish_version(store, version)
    check_refuses(store, version.manifest, version.files)
    real = shop.__class__.__call__

    def without_condition(self, environ, start_response):
        environ.pop("HTTP_IF_NONE_MATCH", None)
        return real(self, environ, start_response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop.__class__, "__call__", without_condition)
        with pytest.raises(PublishError, match="the store writes over objects"):
            check_refuses(store, version.manifest, version.files)


def test_a_missing_bucket_is_one_line(shop):
    with pytest.raises(PublishError, match=r"^s3://nowhere/models/signs/: there is no such bucket"):
        Store("s3://nowhere/models", print).versions("signs")


def test_damaged_bytes_under_a_files_hash_are_found(shop, version):
    file = next(version.manifest.files())
    shop.overwrite(f"signs/v1.0.0/{file.key}", b"x" * file.size)
    with pytest.raises(PublishError, match=r"damaged, expected .* remove that object"):
        upload(Store(shop.address, print), version.manifest, version.files, file)


@pytest.mark.parametrize("same", [True, False])
def test_a_large_file_goes_up_in_parts_and_is_never_written_over(shop, tmp_path, monkeypatch, same):
    monkeypatch.setattr(published_store, "PART_BYTES", 5 * 1024 * 1024)
    path = tmp_path / "model.bin"
    path.write_bytes(bytes(range(256)) * 45_000)
    file, store = described(path.read_bytes()), Store(shop.address, print)
    assert store.put_new("m/model.bin", path, file)
    assert sum("partNumber" in path or method == "POST" for method, path in shop.requests) >= 2
    shop.requests.clear()
    assert store.holds("m/model.bin", file, path)
    assert [method for method, _ in shop.requests] == ["HEAD"]  # the store's hash of the parts' hashes is enough
    again = path if same else tmp_path / "other.bin"
    if not same:
        again.write_bytes(bytes(reversed(range(256))) * 45_000)
    assert not store.put_new("m/model.bin", again, described(again.read_bytes()))
    assert shop.read("m/model.bin") == path.read_bytes()
    uploads = shop.client().list_multipart_uploads(Bucket=shop.bucket).get("Uploads", [])
    assert not uploads  # parts that nobody completes would be paid for


@pytest.mark.parametrize("part_bytes", [5 * 1024 * 1024, 16 * 1024 * 1024])
def test_a_file_that_changes_after_it_was_hashed_is_not_written(shop, tmp_path, monkeypatch, part_bytes):
    """As when a stage exports the same model again beside a publish: the size stays, the bytes do not."""
    monkeypatch.setattr(published_store, "PART_BYTES", part_bytes)
    path = tmp_path / "model.bin"
    path.write_bytes(b"before" * 2_000_000)
    file = described(path.read_bytes())
    path.write_bytes(b"after!" * 2_000_000)
    with pytest.raises(PublishError, match=rf"^{path}: changed since it was hashed, expected sha256 {file.sha256}"):
        Store(shop.address, print).put_new("m/model.bin", path, file)
    assert shop.keys() == []
    assert not shop.client().list_multipart_uploads(Bucket=shop.bucket).get("Uploads", [])
    path.unlink()
    with pytest.raises(PublishError, match=rf"^{path}: gone since it was hashed"):
        Store(shop.address, print).put_new("m/model.bin", path, file)


def test_a_store_does_not_hold_what_only_the_changed_file_here_is(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(published_store, "PART_BYTES", 5 * 1024 * 1024)
    store, path = Store(shop.address, print), tmp_path / "model.bin"
    expected = described(b"before" * 2_000_000)
    path.write_bytes(b"after!" * 2_000_000)
    assert store.put_new("m/model.bin", path, described(path.read_bytes()))
    assert not store.holds("m/model.bin", expected, path)


def test_an_upload_in_parts_that_fails_leaves_no_parts(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(published_store, "PART_BYTES", 5 * 1024 * 1024)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    path = tmp_path / "model.bin"
    path.write_bytes(b"abcdef" * 2_000_000)
    seen = []

    def fail(method, path, go_on, start_response):
        seen.append(method)
        return refuse(start_response) if seen.count("PUT") == 2 and method == "PUT" else go_on()

    shop.hook = fail
    with pytest.raises(PublishError, match="SlowDown"):
        Store(shop.address, print).put_new("m/model.bin", path, described(path.read_bytes()))
    shop.hook = None
    assert not shop.client().list_multipart_uploads(Bucket=shop.bucket).get("Uploads", [])
    assert shop.keys() == []


def test_a_download_goes_on_where_the_connection_broke(shop, tmp_path, quick):
    data = bytes(range(256)) * 4000
    shop.overwrite("m/model.bin", data)
    tries = []

    def break_off(method, path, go_on, start_response):
        if method != "GET" or len(tries) > 2:
            return go_on()
        tries.append(path)
        return cut_short(go_on(), 300_000 if len(tries) == 1 else 100_000)

    shop.hook = break_off
    told: list[str] = []
    Store(shop.address, told.append).download("m/model.bin", described(data), tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == data
    assert not list(tmp_path.glob("*.part"))
    assert told == ["model.bin: the connection broke; trying again"] * 3


def test_what_an_earlier_try_left_is_used_if_it_fits_and_dropped_if_not(shop, tmp_path):
    data = b"0123456789" * 1000
    shop.overwrite("m/model.bin", data)
    store, path = Store(shop.address, print), tmp_path / "model.bin"
    for left in (data[:4000], b"another model" * 10, data, data + b"more", b"x" * len(data)):
        (tmp_path / "model.bin.part").write_bytes(left)
        store.download("m/model.bin", described(data), path)
        assert path.read_bytes() == data


@pytest.mark.parametrize("there", [b"1" * 10_000, b"0123456789" * 999, b"0123456789" * 1001, b""])
def test_a_damaged_object_is_named_and_nothing_is_left_of_it(shop, tmp_path, there):
    shop.overwrite("m/model.bin", there)
    for left in (None, b"0123456789" * 999 + b"01234"):
        if left is not None:
            (tmp_path / "model.bin.part").write_bytes(left)
        with pytest.raises(PublishError, match=r"models/m/model.bin: damaged, expected 10000 bytes of sha256"):
            Store(shop.address, print).download("m/model.bin", described(b"0123456789" * 1000), tmp_path / "model.bin")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["", "bucket/models", "http://bucket/models", "s3://", "s3:///models", "s3:bucket"])
def test_what_is_no_address(address):
    with pytest.raises(PublishError, match="expected s3://bucket/prefix"):
        split_address(address)
