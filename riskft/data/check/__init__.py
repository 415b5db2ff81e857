"""The data check: opens every file and reports all faults at once."""
