"""Which of many unlabelled scans to annotate next."""
