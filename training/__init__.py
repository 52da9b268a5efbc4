"""The parts of training: arguments, data, evaluation, checkpoints, the folder it leaves."""
