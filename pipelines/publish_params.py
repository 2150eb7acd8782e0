"""The section ``publish`` of params.yaml: what is published, and where to. No stage reads it: DVC does not watch it."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator

from plumbline.errors import ParamsError
from plumbline.params import StageParams, line_of, load_section
from plumbline.published import MODEL_NAME, PublishError
from plumbline.published_store import split_address
from stages.shape import PARAMS_FILE

SECTION = "publish"


class PublishParams(StageParams):
    """What is published, and where to."""

    model: str = Field(description="Its name in the bucket, in DVC's registry, and for `plumbline fetch`.")
    destination: str = Field(description="s3://bucket/prefix; empty: nothing can be published.")

    @field_validator("model")
    @classmethod
    def _is_name(cls, value: str) -> str:
        if not re.fullmatch(MODEL_NAME, value):
            raise ValueError("small letters, digits and dashes, such as street-signs")
        return value

    @field_validator("destination")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            if value:
                split_address(value)
        except PublishError as error:
            raise ValueError("s3://bucket/prefix, or nothing") from error
        return value


def read_publish_params(root: Path) -> PublishParams:
    """Read the section of a project's params.yaml, to publish by it.

    Raises:
        ParamsError: It is missing, a value is wrong, or there is no destination.
    """
    path = root / PARAMS_FILE
    params = load_section(path, SECTION, PublishParams)
    if not params.destination:
        where = f"{path}:{line_of(path, (SECTION, 'destination'))}"
        raise ParamsError(
            f"{where}: {SECTION}.destination is empty, expected s3://bucket/prefix; set it, commit that, and publish"
        )
    return params
