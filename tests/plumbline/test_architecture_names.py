"""Names of architectures, found without importing what builds them."""

import subprocess
import sys

import pytest
import timm
import torchvision

from plumbline.architecture_names import classifier_sources, is_classifier, known_classifiers, nearest
from plumbline.yolo import quiet_ultralytics

NAMED_IN_README = [
    "lenet", "alexnet", "vgg11", "googlenet", "resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small",
    "shufflenet_v2_x0_5", "efficientnet_b0", "vit_b_16", "swin_t", "convnext_tiny", "repvgg_a0", "mobilevit_s",
    "yolo11n-cls", "yolov8n-cls", "yolo26n-cls",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED_IN_README)
def test_what_readme_names_is_known(name):
    assert is_classifier(name)


def test_the_libraries_know_the_same_names():
    sources = classifier_sources()
    theirs = set(torchvision.models.list_models(module=torchvision.models))
    assert {name for name, source in sources.items() if source == "torchvision"} == theirs
    assert {name for name, source in sources.items() if source == "timm"} == set(timm.list_models()) - theirs


def test_ultralytics_finds_its_classifiers_by_these_names():
    quiet_ultralytics()
    from ultralytics.nn.tasks import yaml_model_load

    names = [name for name, source in classifier_sources().items() if source == "yolo"]
    assert len(names) >= 15
    for name in names:
        found = yaml_model_load(f"{name}.yaml")
        assert found["scale"] in found["scales"]
        assert found["head"][-1][2] == "Classify"


def test_torchvision_wins_where_timm_has_the_name_too():
    assert classifier_sources()["resnet18"] == "torchvision"
    assert "resnet18" in timm.list_models()


def test_other_tasks_are_left_out():
    for name in (
        "fcn_resnet50",
        "raft_large",
        "fasterrcnn_resnet50_fpn",
        "quantized_resnet18",
        "r3d_18",
        "yolo11n",
        "",
    ):
        assert not is_classifier(name)
    assert len(set(known_classifiers())) == len(known_classifiers())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("resent18", "resnet18"), ("ResNet50", "resnet50"), ("yolov11n-cls", "yolo11n-cls"), ("googlnet", "googlenet"),
     ("vit-b-16", "vit_b_16"), ("repvgga0", "repvgg_a0"), ("lenet5", "lenet"), ("mobilenetv2", "mobilenet_v2")],
)  # fmt: skip
def test_the_nearest_name_comes_first(typed, meant):
    assert nearest(typed)[0] == meant


def test_nothing_is_near_to_nonsense():
    assert nearest("xyzzy") == ()


def test_no_heavy_package_is_imported():
    code = (
        "import sys; from plumbline.architecture_names import nearest; nearest('resent18');"
        "print([m for m in ('torch', 'torchvision', 'timm', 'ultralytics', 'lightning') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
