#!/bin/sh
# All checks: lint, format, types, tests. Options go to pytest: sh scripts/test.sh -k dashboard
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/pytest "$@"
