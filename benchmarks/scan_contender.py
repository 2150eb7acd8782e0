"""One contender of `data_scan.py`: looks through a folder of images once for each line that it is sent.

Runs in whichever environment holds the contender's package, so it imports nothing of this project before it must.
Each round answers with the seconds that it took, imports and setting up left out.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Round = Callable[[list[Path]], object]


def full_scan() -> Round:
    """Read, sha256, header, strict decoding, statistics and perceptual hash."""
    import cv2

    from plumbline.image_scan import scan_image

    cv2.setNumThreads(1)
    return lambda paths: [scan_image(path) for path in paths]


def imread() -> Round:
    """Decode in colour, and nothing else."""
    import cv2

    cv2.setNumThreads(1)
    # Strings are made beforehand: this is the time of cv2 alone.
    return lambda paths: [cv2.imread(path) is None for path in map(str, paths)]


def cleanvision() -> Round:
    """Look for all issues that it looks for by default."""
    from cleanvision import Imagelab

    def look(paths: list[Path]) -> object:
        lab = Imagelab(data_path=str(paths[0].parent))
        begin = time.perf_counter()
        lab.find_issues(n_jobs=1, verbose=False)
        return time.perf_counter() - begin

    return look


def ultralytics() -> Round:
    """Check each image with a label of one box, as before a training."""
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="bench-ultralytics-")
    from ultralytics.data.utils import verify_image_label

    def look(paths: list[Path]) -> object:
        tasks = [(str(path), str(path.with_suffix(".txt")), "", False, 1, 0, 0, False) for path in paths]
        begin = time.perf_counter()
        for task in tasks:
            verify_image_label(task)
        return time.perf_counter() - begin

    return look


CONTENDERS = {
    "plumbline": full_scan,
    "imread": imread,
    "imread-tuned": imread,  # in another environment
    "cleanvision": cleanvision,
    "ultralytics": ultralytics,
}


def main() -> None:
    """Wait for a line, do a round, answer; until there are no more lines."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    paths = sorted(folder.glob("*.jpg"))
    with contextlib.redirect_stdout(sys.stderr):
        look = CONTENDERS[name]()
        answers.write("ready\n")
        answers.flush()
        for _ in sys.stdin:
            begin = time.perf_counter()
            own = look(paths)
            # What times itself leaves its setting up out.
            taken = own if isinstance(own, float) else time.perf_counter() - begin
            answers.write(f"{taken!r}\n")
            answers.flush()


if __name__ == "__main__":
    main()
