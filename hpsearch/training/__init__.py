"""One training run: trainer, optimizers, schedules, dropout, freezing, checkpoints."""
