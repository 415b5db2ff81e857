"""The weighted loss, its parts, and its controls."""
