"""The source network: its checkpoint, and its adaptation to the target's channels and classes."""
