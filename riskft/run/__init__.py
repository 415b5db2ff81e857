"""The run folder: where a run is, what is in it, and what was recorded of it."""
