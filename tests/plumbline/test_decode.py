"""numpy's decoding equals ultralytics' own, and its suppression equals torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import BackendError
from plumbline.runtime.artifact import OutputSpec, read_artifact
from plumbline.runtime.decode import decode, suppress
from plumbline.runtime.preprocess import preprocess


def ultralytics_decoded(folder, tensor):
    """Boxes xyxy (N, 4) and scores (N, C) of every cell, by the checkpoint's own head."""
    from plumbline.yolo import quiet_ultralytics

    quiet_ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    model, _ = load_checkpoint(folder / "weights" / "best.pt")
    head = model.model[-1]
    head.end2end = getattr(head, "one2one_cv2", None) is not None
    model.fuse(verbose=False)
    model.eval()
    head.max_det = 10**6
    with torch.inference_mode():
        out = model(torch.from_numpy(tensor))[0][0].numpy()
    if head.end2end:
        return out[:, :4], out[:, 4], out[:, 5].astype(int)
    xywh, scores = out[:4].T, out[4:].T
    xyxy = np.concatenate([xywh[:, :2] - xywh[:, 2:] / 2, xywh[:, :2] + xywh[:, 2:] / 2], axis=1)
    cell, class_id = np.nonzero(scores > -1)
    return xyxy[cell], scores[cell, class_id], class_id


def rows(xyxy, score, class_id):
    table = np.column_stack([score, class_id, xyxy]).astype(np.float64)
    return table[np.lexsort(table.round(3).T[::-1])]


@pytest.mark.parametrize("model", ["yolo11n", "yolo26n"])
def test_every_cell_decodes_as_ultralytics_does(hubs, photos, model):
    folder = hubs[model]
    artifact = read_artifact(folder / "weights")
    from plumbline.runtime.session import load_artifact

    session = load_artifact(folder / "weights")
    assert artifact.outputs.nms_free == (model == "yolo26n")
    assert artifact.outputs.reg_max == (1 if model == "yolo26n" else 16)
    for photo in photos[:2]:
        tensor, _ = preprocess(photo, artifact.input.size_wh, artifact.preprocessing)
        xyxy, score, class_id = ultralytics_decoded(folder, tensor)
        ours = decode(session.engine(tensor), artifact.outputs, 0.0, 1.0, 10**6)
        if artifact.outputs.nms_free:
            # Ultralytics keeps the best cells first and then the best of their classes: compare those that it gives.
            best = np.argsort(-score, kind="stable")[:20]
            top = ours.confidence[:20]
            assert np.allclose(score[best], top, atol=1e-5)
        else:
            want, have = rows(xyxy, score, class_id), rows(ours.xyxy, ours.confidence, ours.class_id)
            assert want.shape == have.shape
            assert np.abs(want - have).max() < 2e-3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(1, 4), st.floats(0.1, 0.9), st.integers(0, 2**32 - 1))
def test_suppression_equals_torchvisions(count, num_classes, iou, seed):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, 60, (count, 2)), rng.uniform(1, 40, (count, 2))
    xyxy = np.concatenate([corner, corner + size], axis=1)
    class_id = rng.integers(0, num_classes, count)
    score = np.sort(rng.permutation(count) / max(count, 1))[::-1].copy()
    want = torchvision.ops.batched_nms(torch.from_numpy(xyxy), torch.from_numpy(score), torch.from_numpy(class_id), iou)
    before = xyxy.copy()
    have = suppress(xyxy, class_id, iou, count + 1)
    assert have.tolist() == want.tolist()
    assert (xyxy == before).all()
    assert suppress(xyxy, class_id, iou, 3).tolist() == have[:3].tolist()


def single_scale(box, logits, nms_free=False):
    spec = OutputSpec(("box_8", "cls_8"), (8,), box.shape[1] // 4, nms_free)
    return [box, logits], spec


def test_a_box_of_known_sides():
    # One cell at row 1, column 2 of a 3 x 4 grid, stride 8: its centre is (20, 12); sides 1, 0.5, 2, 1 cells.
    box = np.zeros((1, 4, 3, 4), np.float32)
    box[0, :, 1, 2] = [1, 0.5, 2, 1]
    logits = np.full((1, 2, 3, 4), -20, np.float32)
    logits[0, 1, 1, 2] = 0
    found = decode(*single_scale(box, logits), 0.4, 0.7, 10)
    assert found.xyxy.tolist() == [[12, 8, 36, 20]]
    assert found.confidence.tolist() == [0.5]
    assert found.class_id.tolist() == [1]


def test_threshold_is_exclusive_and_none_is_an_empty_result():
    box, logits = np.zeros((1, 4, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.float32)
    found = decode(*single_scale(box, logits), 0.5, 0.7, 10)
    assert len(found) == 0
    assert found.xyxy.shape == (0, 4)


def test_a_head_without_suppression_keeps_overlapping_boxes():
    box = np.full((1, 4, 1, 2), 5, np.float32)
    logits = np.array([2.0, 1.0], np.float32).reshape(1, 1, 1, 2)
    kept = decode(*single_scale(box, logits), 0.1, 0.3, 10)
    assert len(kept) == 1
    kept = decode(*single_scale(box, logits, nms_free=True), 0.1, 0.3, 10)
    assert len(kept) == 2
    kept = decode(*single_scale(box, logits, nms_free=True), 0.1, 0.3, 1)
    assert kept.confidence.tolist() == pytest.approx([0.8808], abs=1e-4)


def test_nan_is_an_error_not_an_empty_image():
    box, logits = np.zeros((1, 4, 2, 2), np.float32), np.full((1, 1, 2, 2), np.nan, np.float32)
    with pytest.raises(BackendError, match="the class scores at stride 8 hold NaN"):
        decode(*single_scale(box, logits), 0.5, 0.7, 10)
