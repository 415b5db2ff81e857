"""Many runs from one file: a grid or random draws over riskft's own options, here or on a SLURM cluster."""
