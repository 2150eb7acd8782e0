"""What runs on a device: numpy, an image decoder (OpenCV) and the one engine that an artifact asks for.

No torch, no ultralytics, no pandas: importing them here fails the import contract. The same code scores a model on the
dev box and on a board.

    >>> from plumbline.runtime import load_artifact                      # doctest: +SKIP
    >>> session = load_artifact("models/artifacts/onnx-int8")            # doctest: +SKIP
    >>> session.predict(read_image("photo.jpg"))                         # doctest: +SKIP
"""

from plumbline.runtime.artifact import Artifact, read_artifact
from plumbline.runtime.detections import Detections
from plumbline.runtime.preprocess import read_image
from plumbline.runtime.session import Session, load_artifact

__all__ = ["Artifact", "Detections", "Session", "load_artifact", "read_artifact", "read_image"]
