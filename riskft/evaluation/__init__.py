"""Scores of whole volumes."""
