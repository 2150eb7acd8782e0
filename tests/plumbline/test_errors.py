"""One tree of errors, and how many findings a person is shown."""

import pytest

from plumbline import errors
from plumbline.errors import PlumblineError, first_and_count


def test_every_error_is_a_plumbline_error():
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(classes) == 7
    assert all(issubclass(value, PlumblineError) for value in classes)


@pytest.mark.parametrize("number", [0, 1, 10])
def test_few_lines_are_all_shown(number):
    lines = [f"line {index}" for index in range(number)]
    assert first_and_count(lines, where="all.csv") == "\n".join(lines)


def test_the_rest_is_counted_and_the_file_named():
    lines = [f"line {index}" for index in range(12)]
    shown = first_and_count(lines, where="all.csv").split("\n")
    assert shown == [*lines[:10], "... and 2 more (all in all.csv)"]
    assert first_and_count(lines).endswith("... and 2 more")
