"""Expected risk and expected Dice of predictions without a label, calibrated on labelled cases."""
