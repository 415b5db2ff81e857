"""Comparing the options and data that a checkpoint was trained with to those of a command."""
