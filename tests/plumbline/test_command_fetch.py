"""`plumbline fetch`: from a real S3 server to a folder that the runtime opens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from gated_store import cut_short, gated_store
from published_version import make_version, publish_version

from plumbline import published_store
from plumbline.commands import main
from plumbline.files import sha256_of
from plumbline.published_store import Store
from plumbline.runtime.session import load_artifact

RED = np.full((32, 32, 3), (0, 0, 255), np.uint8)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """The same model three times: each of another gain, which its confidence tells."""
    names = {"v1.0.0": 8.0, "v1.10.0": 4.0, "v1.9.0": 6.0}
    return {name: make_version(tmp_path_factory.mktemp(name), name, gain) for name, gain in names.items()}


@pytest.fixture
def shop(versions):
    """A store in which v1.0.0 is published."""
    with gated_store() as store:
        publish_version(Store(store.address, print), versions["v1.0.0"])
        store.requests.clear()
        yield store


@pytest.fixture
def fetch(shop, tmp_path, capsys):
    """Run the command into tmp_path / "device"; gives exit code, stdout and stderr."""

    def run(reference="signs@v1.0.0", *options, to=None):
        capsys.readouterr()
        target = () if "--target" in options else ("--target", "onnx-int8")
        to = tmp_path / "device" if to is None else to
        code = main(["fetch", reference, "--from", shop.address, "--to", str(to), *target, *options])
        return code, *capsys.readouterr()

    return run


def key_of(version, name="model.onnx"):
    (file,) = [file for file in version.manifest.targets["onnx-int8"].files if file.path == name]
    return f"signs/{version.manifest.version}/{file.key}"


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def gets(shop) -> list[str]:
    return [path.rpartition("/")[2] for method, path in shop.requests if method == "GET"]


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def test_what_is_fetched_runs_and_has_every_published_hash(fetch, versions, tmp_path):
    code, out, _ = fetch()
    device = tmp_path / "device"
    assert (code, out) == (0, f"{device}: onnx-int8 of signs@v1.0.0; 3 files fetched, 0 were here\n")
    assert set(content(device)) == {"model.onnx", "artifact.json", "manifest.json", "labels.csv"}
    for file in versions["v1.0.0"].manifest.targets["onnx-int8"].files:
        assert sha256_of(device / file.path) == file.sha256
    found = load_artifact(device).predict(RED)
    assert found.probabilities.argmax() == 0
    assert found.probabilities[0] == pytest.approx(np.exp(9) / (np.exp(9) + 2), abs=1e-5)
    assert beside(device) == ["device"]


def test_fetched_again_nothing_is_fetched(fetch, shop, tmp_path):
    fetch()
    before = {path: path.stat().st_ino for path in (tmp_path / "device").iterdir()}
    shop.requests.clear()
    code, out, _ = fetch()
    assert code == 0
    assert out.endswith("0 files fetched, 3 were here\n")
    assert gets(shop) == ["manifest.json"]
    assert {path: path.stat().st_ino for path in (tmp_path / "device").iterdir()} == before


def test_only_what_is_changed_or_missing_is_fetched(fetch, shop, tmp_path):
    fetch()
    as_published = content(tmp_path / "device")
    (tmp_path / "device" / "labels.csv").unlink()
    shop.requests.clear()
    assert fetch()[0] == 0
    assert gets(shop) == ["manifest.json", "labels.csv"]
    data = bytearray(as_published["model.onnx"])
    data[100] ^= 1
    (tmp_path / "device" / "model.onnx").write_bytes(data)
    shop.requests.clear()
    assert fetch()[0] == 0
    assert gets(shop) == ["manifest.json", "model.onnx"]
    assert content(tmp_path / "device") == as_published


def test_latest_is_the_highest_with_a_manifest(fetch, shop, versions, tmp_path):
    store = Store(shop.address, print)
    publish_version(store, versions["v1.9.0"])
    assert "signs@v1.9.0;" in fetch("signs@latest")[1]
    publish_version(store, versions["v1.10.0"])
    shop.overwrite("signs/v2.0.0/0/half-published", b"x")
    shop.overwrite("signs/notes/about.txt", b"x")
    publish_version(store, versions["v1.9.0"].changed(version="v3.0.0-rc.1"))
    code, out, _ = fetch("signs@latest")
    assert code == 0
    assert "signs@v1.10.0; 2 files fetched, 1 were here" in out  # the labels are the same
    assert load_artifact(tmp_path / "device").predict(RED).probabilities[0] < 0.99


def test_another_target_replaces_the_first(fetch, tmp_path):
    fetch()
    assert fetch("signs@v1.0.0", "--target", "onnx-fp32")[0] == 0
    assert load_artifact(tmp_path / "device").artifact.name == "onnx-fp32"


def test_without_labels(fetch, tmp_path):
    assert fetch("signs@v1.0.0", "--no-labels")[0] == 0
    assert set(content(tmp_path / "device")) == {"model.onnx", "artifact.json", "manifest.json"}


@pytest.mark.parametrize("damage", ["other bytes", "cut short", "gone"])
def test_a_damaged_object_is_named_and_what_was_there_stays(fetch, shop, versions, tmp_path, damage):
    fetch()
    before = content(tmp_path / "device")
    new = versions["v1.9.0"]
    publish_version(Store(shop.address, print), new)
    key = key_of(new)
    good = shop.read(key)
    if damage == "gone":
        shop.client().delete_object(Bucket=shop.bucket, Key=f"models/{key}")
    else:
        shop.overwrite(key, b"x" * len(good) if damage == "other bytes" else good[:-1])
    code, out, err = fetch("signs@v1.9.0")
    assert (code, out) == (1, "")
    (error,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert error.startswith(f"error: s3://{shop.bucket}/models/{key}: ")
    assert ("no such object" if damage == "gone" else "damaged, expected") in error
    assert content(tmp_path / "device") == before
    load_artifact(tmp_path / "device")
    # Once it is mended, the fetch goes on: what was brought is not brought again.
    shop.overwrite(key, good)
    shop.requests.clear()
    assert fetch("signs@v1.9.0")[0] == 0
    assert set(gets(shop)) <= {"manifest.json", "model.onnx", "artifact.json"}
    assert load_artifact(tmp_path / "device").artifact.name == "onnx-int8"
    assert beside(tmp_path / "device") == ["device"]


def test_a_manifest_of_another_version_is_refused(fetch, shop, versions, tmp_path):
    publish_version(Store(shop.address, print), versions["v1.9.0"])
    shop.overwrite("signs/v1.0.0/manifest.json", shop.read("signs/v1.9.0/manifest.json"))
    code, _, err = fetch()
    assert code == 1
    assert "is of signs@v1.9.0, expected signs/v1.0.0" in err
    assert not (tmp_path / "device").exists()


def test_killed_in_the_middle_it_goes_on_from_there(shop, versions, tmp_path, tmp_path_factory):
    padded = make_version(tmp_path_factory.mktemp("padded"), "v5.0.0", padding=3_000_000)
    publish_version(Store(shop.address, print), padded)
    device, half = tmp_path / "device", threading.Event()
    let_go = threading.Event()

    def stop_half_way(method, path, go_on, start_response):
        if method != "GET" or not path.endswith("model.onnx"):
            return go_on()
        data = b"".join(go_on())

        def slowly():
            yield data[:2_000_000]
            half.set()
            let_go.wait(60)
            yield data[2_000_000:]

        return slowly()

    shop.hook = stop_half_way
    command = [sys.executable, "-m", "plumbline.commands", "fetch", "signs@v5.0.0", "--from", shop.address]
    command = [sys.executable, "-c", "import sys; from plumbline.commands import main; sys.exit(main())", *command[3:]]
    process = subprocess.Popen([*command, "--to", str(device), "--target", "onnx-int8"])
    assert half.wait(60)
    part = device.with_name(".device.fetching") / "model.onnx.part"
    while not part.exists() or part.stat().st_size < 1_000_000:  # written in blocks of a megabyte
        assert process.poll() is None
    process.kill()
    process.wait()
    let_go.set()
    assert not device.exists()
    sent = []

    def count(method, path, go_on, start_response):
        answer = b"".join(go_on())
        if path.endswith("model.onnx"):
            sent.append(len(answer))
        return [answer]

    shop.hook = count
    assert main(["fetch", "signs@v5.0.0", "--from", shop.address, "--to", str(device), "--target", "onnx-int8"]) == 0
    assert sum(sent) <= 2_100_000
    assert load_artifact(device).predict(RED).probabilities.argmax() == 0
    assert beside(device) == ["device"]


def test_a_connection_that_breaks_is_taken_up_again(fetch, shop, monkeypatch):
    monkeypatch.setattr(published_store, "_wait", lambda attempt: None)
    broken = []

    def break_once(method, path, go_on, start_response):
        if method == "GET" and path.endswith("model.onnx") and not broken:
            broken.append(path)
            return cut_short(go_on(), 100)
        return go_on()

    shop.hook = break_once
    code, _, err = fetch()
    assert code == 0
    assert "model.onnx: the connection broke; trying again" in err


def test_two_fetches_into_one_folder_at_once(shop, tmp_path):
    codes = []

    def run():
        codes.append(
            main(
                ["fetch", "signs@v1.0.0", "--from", shop.address, "--to", str(tmp_path / "d"), "--target", "onnx-int8"]
            )
        )

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0]
    load_artifact(tmp_path / "d")
    assert beside(tmp_path / "d") == ["d"]


def test_a_folder_with_other_things_is_never_replaced(fetch, tmp_path):
    device = tmp_path / "device"
    device.mkdir()
    (device / "thesis.tex").write_text("years of work")
    code, _, err = fetch()
    assert code == 1
    assert f"{device}: holds thesis.tex, which no fetch brought" in err
    (device / "thesis.tex").unlink()
    assert fetch()[0] == 0
    (device / "notes.txt").write_text("mine")
    assert fetch()[0] == 1
    assert (device / "notes.txt").read_text() == "mine"
    assert fetch(to=device / "notes.txt")[0] == 1


@pytest.mark.parametrize("left", [0, 100, None])
@pytest.mark.parametrize("reference", ["signs@v1.0.0", "signs@v1.9.0"])
def test_a_manifest_that_a_power_cut_has_cut_short_is_replaced(fetch, shop, versions, tmp_path, left, reference):
    publish_version(Store(shop.address, print), versions["v1.9.0"])
    fetch()
    path = tmp_path / "device" / "manifest.json"
    path.write_bytes(bytes(500) if left is None else path.read_bytes()[:left])
    assert fetch(reference)[0] == 0
    assert path.read_bytes() == shop.read(f"{reference.replace('@', '/')}/manifest.json")
    # What no fetch brings is kept beside such a one, too.
    path.write_bytes(b"")
    (tmp_path / "device" / "notes.txt").write_text("mine")
    code, _, err = fetch(reference)
    assert code == 1
    assert "holds notes.txt, which no fetch brought" in err


def test_without_its_manifest_only_what_is_published_is_replaced(fetch, tmp_path):
    fetch()
    (tmp_path / "device" / "manifest.json").unlink()
    assert fetch()[0] == 0
    (tmp_path / "device" / "manifest.json").unlink()
    (tmp_path / "device" / "model.onnx").write_bytes(b"an export of mine")
    code, _, err = fetch()
    assert code == 1
    assert "holds model.onnx, which no fetch brought" in err


def test_another_programs_manifest_is_never_replaced(fetch, tmp_path):
    (tmp_path / "device").mkdir()
    (tmp_path / "device" / "manifest.json").write_text('{"name": "My page", "icons": []}')
    code, _, err = fetch()
    assert code == 1
    assert "holds manifest.json, which no fetch brought" in err
    assert "My page" in (tmp_path / "device" / "manifest.json").read_text()


KILLED_BETWEEN = """
import os, sys
from plumbline.commands import main

def hook(event, arguments):
    if event == "ctypes.dlsym" and arguments[1] == "renameat2":
        raise AttributeError  # as on a system that cannot exchange two folders
    if event == "os.rename" and os.fspath(arguments[0]).endswith(".device.fetching"):
        os._exit(9)

sys.addaudithook(hook)
sys.exit(main(sys.argv[1:]))
"""


def test_killed_while_the_folders_change_places_the_old_one_is_back_without_a_store(fetch, shop, versions, tmp_path):
    fetch()
    device, store = tmp_path / "device", Store(shop.address, print)
    before = content(device)
    publish_version(store, versions["v1.9.0"])
    arguments = ["fetch", "signs@v1.9.0", "--from", shop.address, "--to", str(device), "--target", "onnx-int8"]
    assert subprocess.run([sys.executable, "-c", KILLED_BETWEEN, *arguments], check=False).returncode == 9
    assert not device.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        assert fetch("signs@v1.9.0")[0] == 1
    assert content(device) == before
    shop.requests.clear()
    assert fetch("signs@v1.9.0")[0] == 0
    assert gets(shop) == ["manifest.json"]  # all else was brought before the kill
    assert load_artifact(device).predict(RED).probabilities[0] < 0.9995
    assert beside(device) == ["device"]


def test_what_a_killed_fetch_left_beside_a_folder_that_is_whole_goes(fetch, tmp_path):
    fetch()
    for name in (".device.fetching", ".device.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"old")
    assert fetch()[0] == 0
    assert beside(tmp_path / "device") == ["device"]


def test_a_link_to_the_folder_stays_a_link(fetch, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "device").symlink_to(tmp_path / "real")
    assert fetch()[0] == 0
    assert (tmp_path / "device").is_symlink()
    load_artifact(tmp_path / "real")


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("signs@v9.0.0", "no such version, expected one of: v1.0.0"),
        ("sings@v1.0.0", "no such version, expected any of sings, of which none is published there"),
        ("sings@latest", "no published version"),
        ("signs", "expected MODEL@VERSION"),
    ],
)
def test_what_is_not_published_is_one_line(fetch, tmp_path, reference, said):
    code, _, err = fetch(reference)
    assert code == 1
    assert len(err.splitlines()) == 1
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_the_target_must_be_one_that_there_is(fetch):
    code, _, err = fetch("signs@v1.0.0", "--target", "ncnn-int8")
    assert code == 1
    assert "no target 'ncnn-int8', expected one of: onnx-fp32, onnx-int8 (fastest inside the budget)" in err


def test_it_runs_with_little_more_than_boto3(shop, tmp_path):
    """As on a device: these cannot be imported there, and what runs the model is not needed for the fetch."""
    absent = ["torch", "dvc", "prefect", "gto", "pandas", "pyarrow", "pydantic", "sklearn", "ultralytics"]
    absent += ["numpy", "cv2"]
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        "from plumbline.commands import main\n"
        "codes = [main(arguments.split()) for arguments in sys.argv[1:]]\n"
        "sys.exit(max(codes))\n"
    )
    device = tmp_path / "device"
    fetch = f"fetch signs@latest --from {shop.address} --to {device} --target onnx-int8"
    lineage = f"lineage {device} --json {tmp_path / 'lineage.json'}"
    subprocess.run([sys.executable, "-c", program, fetch, lineage], check=True, env=dict(os.environ))
    assert json.loads((tmp_path / "lineage.json").read_text())["published"]["version"] == "v1.0.0"
