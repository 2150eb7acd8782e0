"""The task `detect`: boxes of objects."""
