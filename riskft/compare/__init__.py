"""Comparison of runs: paired statistics, and a report in one HTML file."""
