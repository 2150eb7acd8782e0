"""The picture of an evaluation."""

import warnings

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from plumbline.score_picture import MOST_CLASSES, confusion_counts, curves_picture


def tables(names, *, background=True, seed=0):
    """Tables as an evaluation gives them."""
    rng = np.random.default_rng(seed)
    recall = np.linspace(0, 1, 101)
    curves = [pd.DataFrame({"recall": recall, "precision": 1 - recall ** (2 + n % 5), "class": name})
              for n, name in enumerate(["all", *names])]  # fmt: skip
    confidence = np.linspace(0.001, 1, 101)
    precision = np.where(confidence > 0.97, np.nan, 0.5 + 0.5 * confidence)
    all_names = [*names, "background"] if background else list(names)
    pairs = rng.integers(0, len(all_names), (40 * len(names), 2))
    pairs[: 30 * len(names), 1] = pairs[: 30 * len(names), 0]
    pairs = pairs[(pairs < len(names)).any(axis=1)]
    return {
        "pr_curve": pd.concat(curves, ignore_index=True),
        "confidence_curve": pd.DataFrame(
            {"confidence": confidence, "precision": precision, "recall": 1 - confidence, "f1": precision / 2}
        ),
        "confusion": pd.DataFrame(np.array(all_names, dtype=object)[pairs], columns=["actual", "predicted"]),
        "classes": pd.DataFrame(
            {"class": names, "num_objects": rng.integers(0, 5000, len(names)), "ap": rng.uniform(0, 1, len(names))}
        ),
    }


def draw(given, threshold=0.4):
    return curves_picture(given, "a title", threshold, class_metric="ap", class_metric_label="AP50-95")


def pixels(png):
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_the_same_tables_give_the_same_bytes_whatever_the_user_has_set():
    given = tables(["cat", "dog", "owl"])
    before = {name: frame.copy(deep=True) for name, frame in given.items()}
    first = draw(given)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30}):
        assert draw(given) == first
    assert b"Software" not in first
    for name, frame in before.items():
        pd.testing.assert_frame_equal(frame, given[name])


@pytest.mark.parametrize("count", [1, 2, 13])
def test_any_number_of_classes_is_drawn(count):
    image = pixels(draw(tables([f"class {n}" for n in range(count)], background=count > 1)))
    assert 1000 < image.shape[0] < 1500
    assert 1500 < image.shape[1] < 2000


def test_the_picture_grows_until_the_most_classes_and_no_further():
    names = [str(n) for n in range(MOST_CLASSES + 7)]
    shapes = []
    for count in (3, MOST_CLASSES, len(names)):
        given = tables(names[:count], background=False)
        few = {"confusion": given["confusion"][:50], "pr_curve": given["pr_curve"][:101]}  # or it takes seconds
        shapes.append(pixels(draw(given | few)).shape)
    assert shapes[0][0] < shapes[1][0] < 3000
    assert shapes[1] == shapes[2]


def test_tables_without_rows_are_said_to_be_empty():
    given = {name: frame[:0] for name, frame in tables(["cat"]).items()}
    image = pixels(draw(given))
    assert (image < 128).any()


def test_an_undefined_metric_is_not_drawn_as_a_zero():
    given = tables(["cat", "dog"])
    zero, undefined = (given | {"classes": given["classes"].assign(ap=[value, 0.5])} for value in (0.0, np.nan))
    assert draw(zero) != draw(undefined)


def test_a_threshold_is_marked_where_it_is():
    given = tables(["cat"])
    a, b = pixels(draw(given, 0.2)).astype(int), pixels(draw(given, 0.8)).astype(int)
    changed = np.argwhere(np.abs(a - b).sum(axis=2) > 60)
    height, width = a.shape[:2]
    assert (changed[:, 0] < height / 2).all()  # the upper right panel alone
    assert (changed[:, 1] > width / 2).all()


def test_names_that_would_be_formulas_or_break_lines_are_written():
    names = ["$x^", "two\nlines", "_hidden", "血小板", "", "a name that is much too long for an axis" * 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of characters that the font does not have
        named, numbered = (draw(tables([*names[:3], name, *names[4:]])) for name in ("血小板", "class 3"))
    assert named == numbered


@pytest.mark.parametrize("background", [True, False])
def test_pairs_are_counted(background):
    given = tables(["dog", "cat", "owl"], background=background)
    names, counts = confusion_counts(given["confusion"], ["dog", "cat", "owl"])
    assert names == ["dog", "cat", "owl", *(["background"] if background else [])]
    expected = pd.crosstab(given["confusion"]["actual"], given["confusion"]["predicted"])
    assert counts.tolist() == expected.reindex(index=names, columns=names, fill_value=0).to_numpy().tolist()
