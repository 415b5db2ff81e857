"""The commands without a trainer, and the messages of all commands."""
