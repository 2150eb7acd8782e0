"""The trained detector, ready for inference; see `plumbline.networks`."""

from __future__ import annotations

from plumbline.yolo.network import load_network

__all__ = ["load_network"]
