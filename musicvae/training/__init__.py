"""Training: arguments, trainer, checkpoints, logging, publishing."""
