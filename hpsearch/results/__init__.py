"""The last mile: the only part that opens the test split."""
