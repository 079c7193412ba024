#!/bin/sh
# Makes the README's pictures from real runs, in about two minutes on two CPU cores; it needs Chromium.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
exec .venv/bin/python scripts/make_pictures.py
