"""The run folder: where it is, what it holds, and how its weights were made."""
