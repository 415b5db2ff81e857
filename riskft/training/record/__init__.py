"""What a checkpoint was made with, and whether that fits what a command asks."""
