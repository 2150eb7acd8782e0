"""The library room: how each step of the line works, with no knowledge of DVC or Prefect."""

__version__ = "0.1.0"
