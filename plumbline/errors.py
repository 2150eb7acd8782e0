"""The one tree of errors that a person can cause or mend.

Form of a message: ``<path>:<line>: <what is wrong>, expected <x>, got <y>; <what to do>``.
Anything that is not a `PlumblineError` is a fault of ours and keeps its traceback.
"""


class PlumblineError(Exception):
    """A fault that the user can mend; its text is one line that says how."""


class ParamsError(PlumblineError, ValueError):
    """A value in params.yaml is missing, unknown, of the wrong type, or out of range."""


class DatasetError(PlumblineError, ValueError):
    """The images or labels are missing, unreadable or wrong."""


class TrainingError(PlumblineError):
    """Training cannot start or cannot go on."""


class BackendError(PlumblineError):
    """An export, a quantization or an inference engine failed."""


class EvaluationError(PlumblineError, ValueError):
    """A metric cannot be computed from what was given."""


class DeviceError(PlumblineError):
    """The device that should measure or run cannot."""


def first_and_count(lines: list[str], shown: int = 10, where: str = "") -> str:
    """Join the first lines and count the rest.

    Args:
        lines: One finding per line.
        shown: How many to show in full.
        where: The file that holds the whole list, if there is one.

    >>> print(first_and_count(["a", "b", "c"], shown=2, where="all.csv"))
    a
    b
    ... and 1 more (all in all.csv)
    """
    rest = len(lines) - shown
    if rest <= 0:
        return "\n".join(lines)
    tail = f"... and {rest} more" + (f" (all in {where})" if where else "")
    return "\n".join([*lines[:shown], tail])
