"""The data check: looks at every file, and reports all faults at once."""
