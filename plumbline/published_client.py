"""boto3's client for a store of published versions: how often it tries, and what its errors mean to a person."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from plumbline.published import PublishError

Tell = Callable[[str], None]

# With boto3's waits of up to 20 s that is a minute and a half as a rule.
ATTEMPTS = 15
# Between two lines of progress.
TELL_EVERY_S = 5.0
MISSING = ("404", "NoSuchKey", "NotFound")
# Another writer was first, or is at it.
TAKEN = ("412", "PreconditionFailed")
# What the store answers, and what to do about it.
_ANSWERS = {
    "NoSuchBucket": "there is no such bucket; make it, or correct the address",
    "AccessDenied": "access is denied; let these credentials list the bucket, and read (to publish: write) its objects",
    "403": "access is denied; let these credentials list the bucket, and read (to publish: write) its objects",
    "InvalidAccessKeyId": "the access key is not known there; correct the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; correct the credentials",
    "ExpiredToken": "the credentials have expired; log in again",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION to it",
    "NotImplemented": "the store does not know conditional writes (If-None-Match), without which a version could be"
    " written over; use one that does",
    "ConditionalRequestConflict": "somebody else is writing the same object; run it again",
}


def make_client(tell: Tell) -> Any:
    """Make an S3 client that tries again what passes by itself, and tells when it does.

    Raises:
        PublishError: boto3 is not installed, or its settings are wrong.
    """
    try:
        import boto3
    except ImportError as error:
        raise PublishError("boto3 is not installed, expected it to reach a bucket; pip install boto3") from error
    from botocore.config import Config

    retries: dict[str, Any] = {"mode": "standard"}
    if not os.environ.get("AWS_MAX_ATTEMPTS"):
        retries["total_max_attempts"] = ATTEMPTS
    config = Config(connect_timeout=5, read_timeout=60, retries=retries)
    try:
        client = boto3.session.Session().client("s3", config=config)
    except boto_errors() as error:
        raise PublishError(f"the store: {explain(error)}") from error
    told_at = float("-inf")

    def told(response: Any, caught_exception: Any, attempts: int, **_others: Any) -> None:
        nonlocal told_at
        is_busy = response is not None and response[0].status_code >= 500
        if (caught_exception is not None or is_busy) and time.monotonic() - told_at >= TELL_EVERY_S:
            told_at = time.monotonic()
            why = "does not answer" if response is None else f"answers {response[0].status_code}"
            tell(f"the store {why} (try {attempts})")

    # It only listens: what it returns, None, leaves the decision to boto3.
    client.meta.events.register("needs-retry.s3", told)
    return client


def boto_errors() -> tuple[type[Exception], ...]:
    """Return what boto3 and the stream of an object's bytes raise."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    # ValueError: an endpoint that is no URL. HTTPError: the body's stream broke off.
    return BotoCoreError, ClientError, Boto3Error, HTTPError, ValueError


def is_broken_off(error: Exception) -> bool:
    """Tell whether a connection broke in the middle of an answer: boto3 does not try that again."""
    from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError
    from urllib3.exceptions import HTTPError

    return isinstance(error, IncompleteReadError | ReadTimeoutError | ResponseStreamingError | HTTPError)


def code_of(error: Exception) -> str:
    """Return the code of the store's answer, such as NoSuchKey; empty where there was none."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def explain(error: Exception) -> str:
    """Return what went wrong and what to do, in one line without a key or secret."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        code, message = code_of(error), error.response.get("Error", {}).get("Message", "")
        if code in MISSING:
            return "there is no such object; correct the address, or publish it again"
        return _ANSWERS.get(code, " ".join(f"the store answers {code}: {message}; run it again".split()))
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "no credentials, expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; set them"
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return (
            f"the store cannot be reached ({error}); check the network, and AWS_ENDPOINT_URL where it is not Amazon's"
        )
    return " ".join(str(error).split()) + "; check boto3's settings"
