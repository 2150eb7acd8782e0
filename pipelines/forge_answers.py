"""What a forge's answer means: try again, and when; or give up, and what a person can do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from plumbline.errors import PlumblineError

if TYPE_CHECKING:
    from pipelines.forge import Connection

T = TypeVar("T")
MOST_SAID = 300  # characters of an answer that are told


class ForgeError(PlumblineError):
    """A forge cannot be reached, or refuses.

    Attributes:
        status: HTTP status of its answer; None where none came.
    """

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Patience:
    """How long to be patient with a server.

    Attributes:
        pauses_s: Before each further try after a 5xx, a timeout or a cut connection.
        longest_wait_s: More than that is not waited for a rate limit.
        unsaid_wait_s: For a rate limit that does not say how long; GitHub asks for a minute at least.
        timeout_s: Without a byte from the server; whole seconds, as PyGithub wants it.
    """

    pauses_s: tuple[float, ...] = (2.0, 8.0, 30.0)
    longest_wait_s: float = 180.0
    unsaid_wait_s: float = 60.0
    timeout_s: int = 30


@dataclass(frozen=True)
class Answer:
    """What came back: `status` None where nothing did; names of headers in lower case.

    `passes`: of this verb, such an answer is no last word, though its status is below 500.
    """

    status: int | None
    said: str
    headers: Mapping[str, str] = field(default_factory=dict)
    passes: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether the server may do better later."""
        return self.status is None or self.status >= 500 or self.passes

    @property
    def is_rate_limit(self) -> bool:
        """Whether it says: not now.

        Source: GitHub, "Rate limits for the REST API": 403 or 429, with ``x-ratelimit-remaining: 0`` or
        ``retry-after``; GitLab, "Rate limits": 429.
        """
        if self.status == 429:
            return True
        told = self.headers.get("x-ratelimit-remaining") == "0" or "retry-after" in self.headers
        return self.status == 403 and (told or "rate limit" in self.said.lower())


def pause_before_next(answer: Answer, pause_s: float, patience: Patience, now: float) -> float | None:
    """Give the seconds to wait before the request is made again; None: it never will be answered otherwise.

    Args:
        answer: To the last try.
        pause_s: What patience has as the next pause.
        patience: For the limits.
        now: Seconds since 1970.

    >>> pause_before_next(Answer(502, "Bad Gateway"), 2.0, Patience(), 0)
    2.0
    >>> pause_before_next(Answer(429, "", {"retry-after": "7"}), 2.0, Patience(), 0)
    7.0
    >>> used_up = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9000"}
    >>> pause_before_next(Answer(403, "", used_up), 2.0, Patience(), 0)
    >>> pause_before_next(Answer(404, "Not Found"), 2.0, Patience(), 0)
    """
    asked_s = _asked_wait(answer.headers, now)
    if answer.is_rate_limit:
        wait_s = max(pause_s, patience.unsaid_wait_s if asked_s is None else asked_s)
    elif answer.is_broken:
        wait_s = max(pause_s, asked_s or 0.0)
    else:
        return None
    return wait_s if wait_s <= patience.longest_wait_s else None


def _asked_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the server asks for: ``retry-after`` first, then when the limit starts anew."""
    if re.fullmatch(r"\d{1,6}", headers.get("retry-after", "")):
        return float(headers["retry-after"])
    if headers.get("x-ratelimit-remaining", headers.get("ratelimit-remaining")) == "0":
        reset = headers.get("x-ratelimit-reset", headers.get("ratelimit-reset", ""))
        if re.fullmatch(r"\d{1,12}", reset):
            return max(0.0, int(reset) - now) + 1.0  # in which part of that second is not known
    return None


def answered(connection: Connection, verb: str, what: str, action: Callable[[], T]) -> T:
    """Do what makes requests, again and again where the answer says that this may help.

    Args:
        connection: To the forge.
        verb: For the permission that it needs.
        what: For the error: "read pull request 12".
        action: May be done again as a whole, however far it came: one that creates looks first for what is there.

    Raises:
        ForgeError: No answer, or one that will be the same however often one asks.
    """
    patience = connection.patience
    for tries, pause_s in enumerate((*patience.pauses_s, None), start=1):
        try:
            return action()
        except connection.module.FAULTS as error:
            answer: Answer = connection.module.answer_of(connection.client, error)
            answer = replace(answer, passes=answer.status in connection.module.AGAIN.get(verb, ()))
            wait_s = None if pause_s is None else pause_before_next(answer, pause_s, patience, time.time())
            if wait_s is None:
                raise ForgeError(_sentence(connection, verb, what, answer, tries), answer.status) from error
        time.sleep(wait_s)
    raise AssertionError("the last try returns or raises")


def _sentence(connection: Connection, verb: str, what: str, answer: Answer, tries: int) -> str:
    address = connection.address
    said = " ".join(answer.said.split()).replace(address.token, "***")[:MOST_SAID]
    got = f"{answer.status} {said}".strip() if answer.status is not None else f"no answer ({said})"
    times = "" if tries == 1 else f", {tries} times"
    return (
        f"{address.repository} on {connection.module.TITLE}: cannot {what}: {got}{times};"
        f" {_remedy(connection, verb, answer)}"
    )


def _remedy(connection: Connection, verb: str, answer: Answer) -> str:
    from pipelines.forge import FORGES

    variable = f"${FORGES[connection.address.forge].token_variable}"
    if answer.is_rate_limit:
        wait_s = _asked_wait(answer.headers, time.time())
        return "the rate limit is used up; run again " + ("later" if wait_s is None else f"in {wait_s:.0f} s")
    if answer.is_broken:
        return "run again later"
    assert answer.status is not None, "no answer is told above"
    return {
        401: f"{variable} is not accepted: it has ended or was withdrawn",
        403: f"{variable} needs {connection.module.NEEDS[verb]}",
        404: f"it is not there, or {variable} may not see it: it needs {connection.module.NEEDS[verb]}",
    }.get(answer.status, "it is refused as it is")
