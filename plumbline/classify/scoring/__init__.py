"""How classifications are scored; see `plumbline.scores` for the verbs, which every task has."""

from __future__ import annotations

from plumbline.classify.scoring.evaluation import HEADLINE, choose_threshold, evaluate
from plumbline.classify.scoring.intervals import bootstrap
from plumbline.classify.scoring.labels import truth_of
from plumbline.classify.scoring.pictures import curves_picture
from plumbline.classify.scoring.predictions import PREDICTIONS_SCHEMA, prediction_rows
from plumbline.classify.scoring.worst import worst_sheet

__all__ = [
    "HEADLINE",
    "PREDICTIONS_SCHEMA",
    "bootstrap",
    "choose_threshold",
    "curves_picture",
    "evaluate",
    "prediction_rows",
    "truth_of",
    "worst_sheet",
]
