"""What the folder of an export holds that is read again: without what it takes to write it."""

from __future__ import annotations

FORMAT = "hpsearch-export-1"
MODEL = "model.pt"
CONFIG = "config.json"
METRICS = "metrics.json"
