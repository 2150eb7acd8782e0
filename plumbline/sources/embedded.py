"""The images that label files hold themselves, beside the files of another source: ``labelme://<address>``."""

from __future__ import annotations

from plumbline import sources
from plumbline.formats.labelme_images import SCHEME, wrap

LAYOUT = ""  # nobody types it: `plumbline.formats.labelme.wrap` makes such addresses


def takes(address: str) -> bool:
    """Say whether an address asks for them."""
    return address.startswith(SCHEME)


def open_source(address: str) -> sources.Source:
    """Open the source behind it, and wrap it; see `plumbline.sources.Kind`."""
    return wrap(sources.open_source(address.removeprefix(SCHEME)))
