"""All Lightning glue: module, trainer, callbacks, checkpoints, loggers."""
