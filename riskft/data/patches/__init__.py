"""Samples batches of patches from prepared volumes."""
