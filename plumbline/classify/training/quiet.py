"""Lightning without its greetings."""

from __future__ import annotations

import logging
import warnings


def quiet_lightning() -> None:
    """Silence Lightning's greetings, tips and guesses in this process: of its lines only errors are for the person."""
    from lightning.pytorch.utilities.warnings import PossibleUserWarning

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=PossibleUserWarning)
    # Of torch's own names that it still uses.
    warnings.filterwarnings("ignore", module=r"lightning\.")
