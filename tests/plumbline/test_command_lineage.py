"""`plumbline lineage`: from a device's file back to the label files, and what it says of a changed one."""

from __future__ import annotations

import json
import shutil

import pytest
from gated_store import gated_store
from published_version import COMMIT, LABEL_ROWS, LINEAGE, make_version, publish_version

from plumbline.commands import main
from plumbline.files import sha256_of
from plumbline.published_store import Store


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Two models, one of them in two versions."""
    with gated_store() as store:
        for version, gain in (("v1.0.0", 8.0), ("v1.1.0", 6.0)):
            made = make_version(tmp_path_factory.mktemp(version), version, gain)
            publish_version(Store(store.address, print), made)
        other = make_version(tmp_path_factory.mktemp("other"), "v1.0.0", 3.0)
        publish_version(Store(store.address, print), other.changed(model="cats"))
        yield store


@pytest.fixture
def device(shop, tmp_path):
    """The folder that was fetched."""
    folder = tmp_path / "device"
    arguments = ["signs@v1.0.0", "--from", shop.address, "--to", str(folder), "--target", "onnx-int8"]
    assert main(["fetch", *arguments]) == 0
    return folder


@pytest.fixture
def lineage(capsys):
    def run(*arguments):
        capsys.readouterr()
        return main(["lineage", *map(str, arguments)]), *capsys.readouterr()

    return run


@pytest.mark.parametrize("path", ["model.onnx", "artifact.json", ""])
def test_every_step_back_to_the_label_files_is_told(device, lineage, path):
    code, out, _ = lineage(device / path)
    assert code == 0
    steps = [
        f"sha256 {sha256_of(device / (path or 'model.onnx'))}",
        "artifact onnx-int8 (onnx, int8) of signs@v1.0.0",
        f"published at commit {COMMIT}",
        f"hub sha256 {LINEAGE['hub_sha256']}",
        f"weights sha256 {LINEAGE['weights_sha256']}",
        f"trained at commit {LINEAGE['train_git_commit']} (lenet, 3 epochs)",
        f"dataset sha256 {LINEAGE['dataset_sha256']}",
        "3 images (test 1, train 1, val 1) from photos",
        f"labels.csv sha256 {sha256_of(device / 'labels.csv')}: 3 label files",
        "a0  photos/0.txt",
        "a1  photos/1.txt",
        "aa  photos/classes.txt",
    ]
    places = [out.index(step) for step in steps]
    assert places == sorted(places)


def test_the_file_for_machines_has_every_row(device, lineage, tmp_path):
    assert lineage(device / "model.onnx", "--json", tmp_path / "found.json")[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["files"] == {"model.onnx": sha256_of(device / "model.onnx")}
    assert found["lineage"] == LINEAGE
    assert found["published"]["manifest_sha256"] == sha256_of(device / "manifest.json")
    assert found["labels"]["rows"][0] == dict(
        zip(*(line.split(",") for line in LABEL_ROWS.splitlines()[:2]), strict=True)
    )
    assert len(found["labels"]["rows"]) == 4


@pytest.mark.parametrize("name", ["model.onnx", "artifact.json", "labels.csv"])
def test_a_changed_file_is_an_error_that_names_it(device, lineage, name):
    data = bytearray((device / name).read_bytes())
    data[len(data) // 2] ^= 1
    (device / name).write_bytes(data)
    code, out, err = lineage(device)
    assert (code, out) == (1, "")
    assert f"error: {device / name}: not as it was published, expected sha256" in err
    assert len(err.splitlines()) == 1


def test_a_changed_file_asked_for_alone_is_an_error(device, lineage):
    (device / "model.onnx").write_bytes(b"another network")
    code, _, err = lineage(device / "model.onnx")
    assert code == 1
    assert "model.onnx: not as it was published" in err
    # What is beside it is as it was.
    assert lineage(device / "artifact.json")[0] == 0


def test_a_missing_file_is_an_error(device, lineage):
    (device / "model.onnx").unlink()
    code, _, err = lineage(device)
    assert code == 1
    assert f"{device / 'model.onnx'}: missing, expected a file of onnx-int8" in err


def test_a_forged_manifest_is_found_with_from(device, lineage, shop):
    """Who can change the model can change the manifest beside it: the published one cannot be changed."""
    (device / "model.onnx").write_bytes(b"another network")
    values = json.loads((device / "manifest.json").read_text())
    for file in values["targets"]["onnx-int8"]["files"]:
        if file["path"] == "model.onnx":
            file.update(sha256=sha256_of(device / "model.onnx"), size=15)
    (device / "manifest.json").write_text(json.dumps(values))
    assert lineage(device / "model.onnx")[0] == 0
    code, _, err = lineage(device / "model.onnx", "--from", shop.address)
    assert code == 1
    assert (
        f"expected what is published as s3://{shop.bucket}/models/signs/v1.0.0/manifest.json, which is another" in err
    )


def test_a_file_alone_is_found_by_its_hash_in_what_is_published(device, lineage, shop, tmp_path):
    alone = tmp_path / "somewhere" / "renamed.bin"
    alone.parent.mkdir()
    shutil.copy(device / "model.onnx", alone)
    code, _, err = lineage(alone)
    assert code == 1
    assert "no manifest.json of a published model beside it" in err
    code, out, _ = lineage(alone, "--from", shop.address)
    assert code == 0
    assert "artifact onnx-int8 (onnx, int8) of signs@v1.0.0" in out
    assert "a0  photos/0.txt" in out
    alone.write_bytes(b"nobody's")
    code, _, err = lineage(alone, "--from", shop.address)
    assert code == 1
    assert f"is in no version at {shop.address}" in err


@pytest.mark.parametrize("theirs", ['{"name": "My page", "icons": []}', "[]", "", "no JSON"])
def test_a_manifest_of_another_program_is_looked_past(device, lineage, shop, tmp_path, theirs):
    alone = tmp_path / "page" / "model" / "renamed.bin"
    alone.parent.mkdir(parents=True)
    shutil.copy(device / "model.onnx", alone)
    for folder in (tmp_path / "page", alone.parent):
        (folder / "manifest.json").write_text(theirs)
    code, out, err = lineage(alone, "--from", shop.address)
    assert (code, err) == (0, "")
    assert "artifact onnx-int8 (onnx, int8) of signs@v1.0.0" in out
    code, _, err = lineage(alone)
    assert code == 1
    assert "no manifest.json of a published model beside it" in err
    shutil.copy(device / "manifest.json", tmp_path / "page")
    assert lineage(alone)[0] == 0


def test_a_manifest_of_a_newer_plumbline_is_not_looked_past(device, lineage, shop):
    values = json.loads((device / "manifest.json").read_text())
    (device / "manifest.json").write_text(json.dumps({**values, "format_version": 2}))
    code, _, err = lineage(device, "--from", shop.address)
    assert code == 1
    assert "expected format_version 1, got 2; use the plumbline that published it" in err


def test_labels_that_were_left_are_read_where_they_are_published(device, lineage, shop):
    (device / "labels.csv").unlink()
    code, out, _ = lineage(device)
    assert code == 0
    assert "say with --from where the version is published" in out
    code, out, _ = lineage(device, "--from", shop.address)
    assert code == 0
    assert "a0  photos/0.txt" in out


def test_ten_label_files_are_shown_and_the_rest_counted(device, lineage, shop, tmp_path, monkeypatch):
    rows = "".join(f"images/{k}.png,{k:02x},train,photos/{k}.txt,b{k},file\n" for k in range(25))
    text = LABEL_ROWS.splitlines()[0] + "\n" + rows
    values = json.loads((device / "manifest.json").read_text())
    (device / "labels.csv").write_text(text)
    values["labels"]["file"].update(sha256=sha256_of(device / "labels.csv"), size=len(text))
    (device / "manifest.json").write_text(json.dumps(values))
    _, out, _ = lineage(device)
    assert out.count("photos/") == 10
    assert f"... and 15 more (all in {device / 'labels.csv'}, or with --all)" in out
    assert lineage(device, "--all")[1].count("photos/") == 25


def test_drawn_labels_have_a_hash_for_each_image(device, lineage):
    text = LABEL_ROWS.splitlines()[0] + "\nimages/0.png,00,train,digits,c0,table\nimages/1.png,01,val,digits,c1,table\n"
    values = json.loads((device / "manifest.json").read_text())
    (device / "labels.csv").write_text(text)
    values["labels"]["file"].update(sha256=sha256_of(device / "labels.csv"), size=len(text))
    (device / "manifest.json").write_text(json.dumps(values))
    _, out, _ = lineage(device)
    assert ": 2 images' labels, drawn, without files" in out
    assert "c0  digits (images/0.png)" in out


def test_nothing_there_is_one_line(lineage, tmp_path):
    code, _, err = lineage(tmp_path / "nothing")
    assert code == 1
    assert err.startswith(f"error: {tmp_path / 'nothing'}: no such file")
