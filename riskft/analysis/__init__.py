"""What studies over many runs share: runs, pairs, statistics and their tables."""
