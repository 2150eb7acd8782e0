"""What the poster prints of texts that a stranger wrote: no command to a forge's runner, and one line where it says so.

GitHub's runner obeys a line that begins with ``::`` (``::add-mask::``), and ``##[`` anywhere in a line, on both
streams; GitLab's log obeys escape sequences.

Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands and the runner's
``ActionCommand.cs``: https://github.com/actions/runner/issues/4692
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping


def one_line(text: str) -> str:
    r"""Put a text on one line, without what is not printable; behind another word it is then no command.

    >>> one_line("a\n::error::b\x1b[0K ##[error]c")
    'a ::error::b [0K ##\u200b[error]c'
    """
    return _without_prefix(" ".join("".join(one if one.isprintable() else " " for one in text).split()))


def tell(text: str, environment: Mapping[str, str]) -> None:
    """Print what may hold a stranger's text, with GitHub's commands off meanwhile."""
    text = _without_prefix(re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", " ", text))
    if environment.get("GITHUB_ACTIONS"):
        word = uuid.uuid4().hex
        text = f"::stop-commands::{word}\n{text}\n::{word}::"
    print(text, flush=True)  # noqa: T201 - what the command is for


def _without_prefix(text: str) -> str:
    return text.replace("##[", "##\u200b[")
