"""What must hold of every data set's tables, as a Great Expectations suite kept as code.

The checks look for faults in a user's files; this suite looks at what is left after them, so a failure means that the
line itself let something through. The gate is the project's own JSON: Data Docs are a page for people to look at, with
fresh ids and times in every run.

Source: https://docs.greatexpectations.io/docs/reference/api/expectations (1.x).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.checks.view import ROUNDING_PX, XYXY, View
from plumbline.data_docs import SuiteOutcome, make_offline
from plumbline.faults import TABLE_EXPECTATION
from plumbline.files import replacing
from plumbline.manifest import FINDINGS_SCHEMA, Dataset, table

_SHOWN = 5  # ids in a message
_SPLITS = ["", "train", "val", "test"]


@dataclass(frozen=True)
class Expected:
    """One expectation: a row of the suite.

    Attributes:
        kind: Its class in `great_expectations.expectations`.
        arguments: Its keyword arguments; a string ``$name`` stands for a value of the data set (see `_values`).
    """

    kind: str
    arguments: dict[str, Any]


def _every_row(column: str, kind: str, **arguments: Any) -> list[Expected]:
    """Return an expectation of a column, with the one that it holds a value at all: the others pass over nulls."""
    return [
        Expected("ExpectColumnValuesToNotBeNull", {"column": column}),
        Expected(kind, {"column": column, **arguments}),
    ]


def _ordered(low: str, high: str, *, or_equal: bool = False) -> Expected:
    pair = {"column_A": high, "column_B": low, "or_equal": or_equal, "ignore_row_if": "either_value_is_missing"}
    return Expected("ExpectColumnPairValuesAToBeGreaterThanB", pair)


# Expectations of rows hold for an empty table, so each table is counted first.
SUITES: dict[str, tuple[Expected, ...]] = {
    "images": (
        Expected("ExpectTableRowCountToBeBetween", {"min_value": 1}),
        *_every_row("image_id", "ExpectColumnValuesToBeUnique"),
        *_every_row("path", "ExpectColumnValuesToBeUnique"),
        *_every_row("sha256", "ExpectColumnValueLengthsToEqual", value=64),
        *_every_row("width", "ExpectColumnValuesToBeBetween", min_value=1),
        *_every_row("height", "ExpectColumnValuesToBeBetween", min_value=1),
        *_every_row("readable", "ExpectColumnValuesToBeInSet", value_set=[True]),
        *_every_row("exif_orientation", "ExpectColumnValuesToBeBetween", min_value=1, max_value=8),
        *_every_row("brightness", "ExpectColumnValuesToBeBetween", min_value=0, max_value=255),
        *_every_row("split", "ExpectColumnValuesToBeInSet", value_set=_SPLITS),
    ),
    "annotations": (
        Expected("ExpectTableRowCountToBeBetween", {"min_value": 1}),
        *_every_row("ann_id", "ExpectColumnValuesToBeUnique"),
        *_every_row("has_image", "ExpectColumnValuesToBeInSet", value_set=[True]),
        *_every_row("class_id", "ExpectColumnValuesToBeBetween", min_value=0, max_value="$last_class_id"),
        # A box has four corners, a label of the whole image none.
        *_every_row("num_corners", "ExpectColumnValuesToBeInSet", value_set=[0, 4]),
        Expected("ExpectColumnValuesToBeBetween", {"column": "x1", "min_value": -ROUNDING_PX}),
        Expected("ExpectColumnValuesToBeBetween", {"column": "y1", "min_value": -ROUNDING_PX}),
        _ordered("x1", "x2"),
        _ordered("y1", "y2"),
        _ordered("x2", "right_edge", or_equal=True),
        _ordered("y2", "lower_edge", or_equal=True),
        *_every_row("source_file", "ExpectColumnValueLengthsToBeBetween", min_value=1),
        *_every_row("source_line", "ExpectColumnValuesToBeBetween", min_value=0),
    ),
}
_KEYS = {"images": "image_id", "annotations": "ann_id"}
_BOOKKEEPING = ("batch_id", "result_format", "catch_exceptions", "unexpected_index_column_names")
_SITE = "plumbline"


def check_expectations(dataset: Dataset, data_docs: Path | None = None) -> pd.DataFrame:
    """Run both suites over the tables of a data set, as they are after the edits.

    The import of Great Expectations takes seconds; nothing is sent anywhere and no project folder is made.

    Args:
        dataset: The tables.
        data_docs: A folder to write the results into as HTML, index.html first; None for none.

    Returns:
        One finding for each expectation that fails, columns of `FINDINGS_SCHEMA`.
    """
    frames = {"images": dataset.images, "annotations": _with_derived(dataset)}
    values = {"$last_class_id": max(len(dataset.class_names) - 1, 0)}
    if data_docs is None:
        return _run(frames, values, None)[0]
    with replacing(data_docs) as folder:
        failed, outcomes = _run(frames, values, folder)
        make_offline(folder, outcomes)
    return failed


def _with_derived(dataset: Dataset) -> pd.DataFrame:
    """Return what the suite looks at of the annotations, with columns that speak of each box's image."""
    boxes = dataset.annotations
    # An image_id that is there twice is for the other suite to find.
    view = View(replace(dataset, images=dataset.images.drop_duplicates("image_id")))
    derived = boxes[["ann_id", "class_id", *XYXY, "source_file", "source_line"]].copy()
    derived["has_image"] = view.image_row >= 0
    derived["num_corners"] = 4 - np.isnan(view.xyxy).sum(axis=1)
    derived[["right_edge", "lower_edge"]] = view.image_wh + ROUNDING_PX
    return derived


def _run(
    frames: dict[str, pd.DataFrame], values: dict[str, Any], data_docs: Path | None
) -> tuple[pd.DataFrame, list[SuiteOutcome]]:
    import great_expectations as gx

    context = _context(data_docs)
    source = context.data_sources.add_pandas("dataset")
    rows: list[dict[str, Any]] = []
    outcomes: list[SuiteOutcome] = []
    for name, frame in frames.items():
        batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = context.suites.add(gx.ExpectationSuite(name, expectations=_expectations(name, values)))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
        result_format = {"result_format": "SUMMARY", "unexpected_index_column_names": [_KEYS[name]]}
        outcome = definition.run(batch_parameters={"dataframe": frame}, result_format=result_format)
        failed = [_finding(name, result) for result in outcome.results if not result.success]
        outcomes.append(SuiteOutcome(name, len(outcome.results), len(failed)))
        rows += failed
    if data_docs is not None:
        context.build_data_docs(site_names=[_SITE])
    return table(rows, FINDINGS_SCHEMA), outcomes


def _context(data_docs: Path | None) -> Any:
    """Return a context that lives in memory alone, and whose Data Docs, if any, go into a folder."""
    # Releases before 1.24 would report their use.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    # By default the context would make a site of its own in the temporary folder.
    config = DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False))
    context: Any = gx.get_context(mode="ephemeral", project_config=config)
    context.variables.progress_bars = {"globally": False}
    if data_docs is not None:
        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(data_docs.resolve())},
        }
        context.add_data_docs_site(site_name=_SITE, site_config=site)
    return context


def _expectations(name: str, values: dict[str, Any]) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        getattr(gxe, row.kind)(**{key: values.get(value, value) if isinstance(value, str) else value
                                  for key, value in row.arguments.items()})
        for row in SUITES[name]
    ]  # fmt: skip


def _finding(name: str, result: Any) -> dict[str, Any]:
    """Return a failed expectation as a row of the findings: which, of what, how often, and where first."""
    config, found = result.expectation_config, result.result
    asked = {key: value for key, value in config.kwargs.items() if key not in _BOOKKEEPING}
    if "column_A" in asked:
        of = f"{name}.parquet"
        wanted = f"{asked['column_A']} {'>=' if asked['or_equal'] else '>'} {asked['column_B']}"
    else:
        of = f"{name}.parquet, column {asked.pop('column')}" if "column" in asked else f"{name}.parquet"
        wanted = ", ".join(f"{key}={value}" for key, value in sorted(asked.items()))
    if "unexpected_count" in found:
        keys = [str(row[_KEYS[name]]) for row in found.get("partial_unexpected_index_list") or ()][:_SHOWN]
        got = f"{found['unexpected_count']} of {found['element_count']} rows against it"
        got += f" (first {_KEYS[name]}: {', '.join(keys)})" if keys else ""
    else:
        # An expectation that could not even be computed has no value, and its exception is in Data Docs.
        got = str(found.get("observed_value", "an exception, which Data Docs show"))
    message = f"{config.type} fails on {of}, expected {wanted or 'it of every row'}, got {got}"
    place = {"source_file": f"{name}.parquet", "source_line": 0, "image_id": -1, "ann_id": -1}
    return {"code": TABLE_EXPECTATION, "severity": "", "message": message, **place}
