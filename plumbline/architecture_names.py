"""The names of classifier architectures, found without importing the packages that build them.

A name is looked for in this order, and the first source that has it builds it: `lenet` of our own; ultralytics
(``yolo11n-cls``); torchvision; timm. So ``resnet18`` is torchvision's, although timm has one too.
"""

from __future__ import annotations

import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path

from plumbline.yolo import known_classifiers as known_yolo_classifiers

LENET = "lenet"

# "@register_model", perhaps with another name or beside more decorators, and then the function that builds it.
_REGISTERED = re.compile(r"^@register_model(?:\(\))?$(?:\n(?:@|#|\s).*)*\ndef (\w+)\(", re.MULTILINE)


@cache
def classifier_sources() -> dict[str, str]:
    """Return name -> ``lenet``, ``yolo``, ``torchvision`` or ``timm``, in the order of the sources.

    Source files are read and nothing is imported, which would take seconds.
    """
    sources = {LENET: LENET}
    for source, names in (
        ("yolo", known_yolo_classifiers()),
        ("torchvision", _registered_in("torchvision")),
        ("timm", _registered_in("timm")),
    ):
        for name in names:
            sources.setdefault(name, source)
    return sources


def known_classifiers() -> tuple[str, ...]:
    """Return every name that `plumbline.classify.training.architectures.build` knows."""
    return tuple(classifier_sources())


def is_classifier(name: str) -> bool:
    """Tell whether there is such an architecture.

    >>> is_classifier("resnet18"), is_classifier("repvgg_a0"), is_classifier("yolo11n-cls"), is_classifier("yolo11n")
    (True, True, True, False)
    """
    return name in classifier_sources()


def nearest(name: str) -> tuple[str, ...]:
    """Return up to three names that are written most like this one, the nearest first.

    >>> nearest("resent18")[0], nearest("yolov11n-cls")[0], nearest("mobilenetv2")[0]
    ('resnet18', 'yolo11n-cls', 'mobilenet_v2')
    """
    written = name.lower()
    names = known_classifiers()
    # Equal likeness: the source that is looked in first wins, and the shorter name, so the plain one of a family.
    order = {known: (rank, len(known)) for rank, known in enumerate(names)}
    found = difflib.get_close_matches(written, names, n=10, cutoff=0.6)
    likeness = {near: difflib.SequenceMatcher(None, near, written).ratio() for near in found}
    return tuple(sorted(found, key=lambda near: (-round(likeness[near], 6), order[near])))[:3]


def _registered_in(package: str) -> list[str]:
    """Return the models that the files of a package's folder ``models`` register; its subfolders do other tasks."""
    found = importlib.util.find_spec(package)
    assert found is not None, package
    assert found.origin is not None
    files = sorted((Path(found.origin).parent / "models").glob("*.py"))
    return sorted(name for path in files for name in _REGISTERED.findall(path.read_text(encoding="utf-8")))
