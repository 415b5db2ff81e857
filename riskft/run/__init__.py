"""The run folder: where it is, what is in it, and the record of how its weights were made."""
