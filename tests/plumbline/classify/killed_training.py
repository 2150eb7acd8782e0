"""Train in processes that kill themselves at chosen moments; run by test_classifier_resume.py in a process of its own.

Processes are forked off one that has imported torch and computed nothing yet, so that each costs no second import.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch
from class_images import some_class_images, training_settings

from plumbline.classify import training
from plumbline.classify.training import fitting, keeping, learner, preparing  # imported before the fork

MOMENTS = ("none", "first epoch", "middle", "before checkpoint", "checkpoint written", "all done")


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(moment):
    """Have this process killed at a moment of its training."""
    step, save, copy = learner.Learner.training_step, fitting.pl.Trainer.save_checkpoint, shutil.copyfile

    def training_step(self, batch, batch_idx):
        epoch = self.trainer.current_epoch
        if batch_idx == 1 and ((moment == "first epoch" and epoch == 0) or (moment == "middle" and epoch == 1)):
            kill()
        return step(self, batch, batch_idx)

    def save_checkpoint(self, filepath, *args, **kwargs):
        if moment == "before checkpoint" and self.current_epoch == 2:
            Path(filepath).write_bytes(b"half of a checkpoint")
            kill()
        save(self, filepath, *args, **kwargs)
        if moment == "checkpoint written" and self.current_epoch == 2:
            kill()

    def copyfile(*args):
        if moment == "all done":
            kill()
        return copy(*args)

    learner.Learner.training_step = training_step
    fitting.pl.Trainer.save_checkpoint = save_checkpoint
    training.shutil.copyfile = copyfile


def facts(trained, work):
    """What must not depend on being killed; the epochs with every digit that a float has."""
    checkpoint = torch.load(work / keeping.LAST, weights_only=True)
    digest = hashlib.sha256()
    states = [checkpoint["state_dict"], *checkpoint["optimizer_states"][0]["state"].values()]
    for state in states:
        for name in sorted(state):
            digest.update(torch.as_tensor(state[name]).numpy().tobytes())
    return {
        "weights": hashlib.sha256(trained.weights.read_bytes()).hexdigest(),
        "last_state": digest.hexdigest(),
        "epochs": trained.epochs.to_json(double_precision=15),
        "epochs_exact": [value.hex() for value in trained.epochs.to_numpy(float).ravel().tolist()],
    }


def train_in_child(folder, moment, dataset, splits, work):
    """Train in a process of its own; return its exit status, and what it printed of its result."""
    result = folder / "result.json"
    result.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        arrange(moment)
        lines = []
        # Dropout, augmentation and shuffling: everything random that there is.
        settings = training_settings(epochs=5, color_jitter=0.3, flip_horizontal=0.5)
        trained = training.train(
            dataset, splits, settings, work=work, tensorboard=folder / "tensorboard", say=lines.append
        )
        result.write_text(json.dumps(facts(trained, work) | {"resumed": trained.resumed_from_epoch, "lines": lines}))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), json.loads(result.read_text()) if result.exists() else None


def main(folder):
    assert preparing
    dataset, splits = some_class_images(folder / "data")
    _, reference = train_in_child(folder, "none", dataset, splits, folder / "uninterrupted")
    codes = []
    for moment in MOMENTS[1:]:
        code, _ = train_in_child(folder, moment, dataset, splits, folder / "killed")
        codes.append(code)
    _, resumed = train_in_child(folder, "none", dataset, splits, folder / "killed")
    (folder / "killed" / keeping.LAST).write_bytes(b"half of a checkpoint")
    _, again = train_in_child(folder, "none", dataset, splits, folder / "killed")
    found = {"codes": codes, "reference": reference, "resumed": resumed, "again": again}
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
