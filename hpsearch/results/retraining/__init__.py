"""Stored configurations trained again: with several seeds, on folds, without Optuna."""
