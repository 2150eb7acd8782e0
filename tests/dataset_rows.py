"""Small data sets made row by row, for the tests of what judges them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ruamel.yaml import YAML

from plumbline.checks import CheckSettings, judge
from plumbline.faults import FAULTS
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table

CLASS_NAMES = ("RBC", "WBC")
NAN4 = (float("nan"),) * 4

# Everything stops, nothing is repaired, and the two classes of two boxes are not too small.
STRICT = CheckSettings(
    severity=dict.fromkeys(FAULTS, "error"), fix=(), undo=(), clip_px=1.0, tiny_px=2.0, giant_share=0.98,
    extreme_aspect=20.0, near_duplicate_iou=0.9, two_classes_iou=0.9, min_boxes_per_class=1, max_imbalance=1000.0,
    max_hash_bits=6,
)  # fmt: skip


def settings_with(**values):
    """STRICT with other values; a code as a key sets its severity."""
    codes = {key: values.pop(key) for key in list(values) if key in FAULTS}
    return replace(STRICT, severity={**STRICT.severity, **codes}, **values)


def write_params(path, **values):
    """Write the project's params.yaml with other values of validate; a code as a key sets its severity."""
    params = YAML(typ="safe").load((Path(__file__).parents[1] / "params.yaml").read_text(encoding="utf-8"))
    params["validate"] |= {"min_boxes_per_class": 1}
    for key, value in values.items():
        (params["validate"]["severity"] if key in FAULTS else params["validate"])[key] = value
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(params, file)


def image(image_id, **values):
    """An image of 100 x 50 pixels that looks like no other."""
    row = {
        "image_id": image_id, "path": f"images/{image_id}.jpg", "sha256": f"{image_id:064x}", "width": 100,
        "height": 50, "phash": 0x9E3779B97F4A7C15 * (image_id + 1) % 2**64, "group": "",
        "source": f"in/{image_id}.jpg", "split": "", "readable": True, "problem": "", "damaged": False,
        "exif_orientation": 1, "brightness": 1.0, "contrast": 1.0, "sharpness": 1.0,
    }  # fmt: skip
    return row | values


def box(ann_id, xyxy=(10, 10, 20, 20), image_id=0, class_id=0, **values):
    row = {
        "image_id": image_id, "ann_id": ann_id, "class_id": class_id, "class_name": (*CLASS_NAMES, "?")[class_id],
        "difficult": False, "truncated": False, "crowd": False, "polygon": None, "rle": "",
        "source_file": f"in/{image_id}.xml", "source_line": 10 + ann_id,
        **dict(zip(("x1", "y1", "x2", "y2"), map(float, xyxy), strict=True)),
    }  # fmt: skip
    return row | values


def finding(code, **values):
    row = {"code": code, "severity": "", "source_file": "in/0.xml", "source_line": 3, "message": "m", "image_id": 0}
    return {**row, "ann_id": -1, **values}


def dataset(images=None, boxes=(), findings=(), class_names=CLASS_NAMES):
    """Two images, and one good box of each class so that no class is empty."""
    good = [box(90, (1, 1, 9, 9)), box(91, (31, 1, 39, 9), class_id=1)]
    return Dataset(
        table(list(images if images is not None else [image(0), image(1)]), IMAGES_SCHEMA),
        table([*boxes, *good], ANNOTATIONS_SCHEMA),
        table(list(findings), FINDINGS_SCHEMA),
        class_names,
        Path("data/dataset"),
    )


def found(data, **values):
    """The codes with the box they are about (-1 for none), sorted by code."""
    findings = judge(data, settings_with(**values)).findings
    return sorted(zip(findings["code"], findings["ann_id"], strict=True))


def messages(data, **values):
    return judge(data, settings_with(**values)).findings["message"].tolist()
