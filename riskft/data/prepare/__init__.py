"""Preprocesses scans to volumes on the prepared grid, and keeps them in the cache."""
