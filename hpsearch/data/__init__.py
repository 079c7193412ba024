"""Images on their way from a source to batches: sources, splits, augmentations, loading."""
