"""What runs on a device: numpy, an image decoder (OpenCV) and the one engine that an artifact asks for.

No torch, no ultralytics, no pandas: the import contract fails on them. The same code scores a model on the dev box and
on a board::

    from plumbline.runtime.preprocess import read_image
    from plumbline.runtime.session import load_artifact

    session = load_artifact("models/artifacts/onnx-int8")
    detections = session.predict(read_image("photo.jpg"))

This file imports nothing, so that a stage depends on the modules it uses and on no other.
"""
