#!/bin/sh
# Builds a wheel, installs it with nothing else in an environment outside of the repository, and runs
# the default study and an export from there: nothing is missing from the package or its dependencies.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
repository=$(pwd)
uv="$repository/.venv/bin/uv"
if [ ! -x "$uv" ]; then
    echo "check_wheel.sh is skipped: uv could not be installed here" >&2
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$uv" build --quiet --wheel --out-dir "$folder/dist"
"$uv" venv --quiet --python "$repository/.venv/bin/python" "$folder/venv"
# The versions of the lock, but only those that the wheel itself asks for.
"$uv" pip install --quiet --python "$folder/venv/bin/python" --constraint requirements.lock \
    "$folder"/dist/*.whl
cd "$folder"
unset PYTHONPATH HPSEARCH_STORAGE
export HPSEARCH_CACHE="$folder/cache"
case $(venv/bin/python -c 'import hpsearch; print(hpsearch.__file__)') in
    "$repository"*) echo "not the wheel's hpsearch was imported" >&2 && exit 1 ;;
esac
venv/bin/hpsearch search --trials 3 --epochs 5
venv/bin/hpsearch export
venv/bin/python -c 'import hpsearch; hpsearch.load("exports/digits")'
echo "the wheel works outside of the repository: $(basename dist/*.whl)"
