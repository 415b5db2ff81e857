"""Which source to fine-tune, or none: scores of one pass over the labelled cases, then a race of short trainings."""
