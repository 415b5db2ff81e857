"""From scans on disk to volumes on the prepared grid, kept in the cache."""
