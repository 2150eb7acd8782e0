"""How many label errors does the ranking find? Errors are planted into the labels that the line's model was tested on.

Trains nothing: `make repro` must have run. In the project's root: `python benchmarks/label_errors.py`
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from plumbline.commands.label_errors import predicted_images, read_predictions
from plumbline.errors import PlumblineError
from plumbline.label_error_trial import naive_ranking, plant_label_errors, score_ranking
from plumbline.label_errors import KINDS, rank_label_errors
from plumbline.manifest import read_dataset


def measure(arguments: argparse.Namespace) -> pd.DataFrame:
    """Return the mean scores over all seeds, one row per ranking."""
    data = read_dataset(arguments.labels)
    predictions = read_predictions(arguments.predictions)
    image_ids = predicted_images(arguments.predictions, predictions, arguments.splits)
    images = data.images[data.images["image_id"].isin(image_ids)]
    resolutions_wh = {row.image_id: (row.width, row.height) for row in images.itertuples()}
    annotations = data.annotations[data.annotations["image_id"].isin(image_ids)]
    print(f"{len(annotations)} boxes in {len(images)} images, {arguments.seeds} seeds")  # noqa: T201
    scores = []
    for seed in range(arguments.seeds):
        wrong, planted = plant_label_errors(annotations, resolutions_wh, len(data.class_names), arguments.share, seed)
        rankings = {
            "plumbline label-errors": rank_label_errors(wrong, predictions, data.class_names, image_ids),
            "unmatched, by confidence": naive_ranking(wrong, predictions),
        }
        scores += [
            {"ranking": name, "num_planted": len(planted), **score_ranking(suspects, planted, wrong)}
            for name, suspects in rankings.items()
        ]
    return pd.DataFrame(scores).groupby("ranking", sort=False).mean()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, default=Path("data/validated"))
    parser.add_argument("--splits", type=Path, default=Path("data/splits.parquet"))
    parser.add_argument("--predictions", type=Path, default=Path("reports/evaluate/weights/predictions.parquet"))
    parser.add_argument("--share", type=float, default=0.02, help="of the boxes, for each of the four kinds")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    try:
        means = measure(arguments)
    except PlumblineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    for ranking, row in means.iterrows():
        print(  # noqa: T201
            f"\n{ranking}: of the first k = {row['num_planted']:.0f} suspects {row['precision_at_k']:.1%} are planted"
            f" errors ({row['named_at_k']:.1%} of them under the right kind);"
            f" the first 2k hold {row['recall_at_2k']:.1%} of all"
        )
        for kind in KINDS:
            # The naive list names no boxes: there is no curve of what it says of them.
            names_boxes = ranking != "unmatched, by confidence" or kind == KINDS[0]
            area = f", area under the ROC curve {row[f'auc_{kind}']:.3f}" if names_boxes else ""
            print(f"  {kind:<16} {row[f'recall_at_2k_{kind}']:6.1%} in the first 2k{area}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
