"""Many runs from one file: a grid, tied rows or random draws of riskft's options, here or on a SLURM cluster."""
