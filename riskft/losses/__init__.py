"""The weighted loss, what it is made of, and its controls."""
