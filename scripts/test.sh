#!/bin/sh
# All checks: lint, format, types, tests, the wheel. Options go to pytest, which then is the last of
# them: sh scripts/test.sh -k dashboard
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
# Many tests start processes, each of which would compile all modules again.
unset PYTHONDONTWRITEBYTECODE
# One process a core, one thread each: twice as fast on two cores, and what it computes is the same.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" .venv/bin/pytest \
    --numprocesses auto --maxprocesses 8 --dist worksteal "$@"
[ "$#" -gt 0 ] || sh scripts/check_wheel.sh
