"""The task `classify`: one class for a whole image."""
