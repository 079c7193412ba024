#!/bin/sh
# One of the five reference studies from data to report, on made data: see scripts/run_reference.py.
#     sh scripts/run_reference.sh hands|caltech101|photos|sign_language|stl10 [FOLDER] [--smallest]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
sh "$root/scripts/setup.sh"
exec "$root/.venv/bin/python" "$root/scripts/run_reference.py" "$@"
