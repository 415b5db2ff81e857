"""The commands that have no trainer, and what any command says when it ends."""
