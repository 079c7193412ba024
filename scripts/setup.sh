#!/bin/sh
# Makes .venv with the pinned dependencies and hpsearch itself, or leaves it where it is up to date.
# Needs python3 (3.11 to 3.13) with venv, nothing else; PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'; then
    echo "hpsearch needs Python 3.11 to 3.13, but '$python' is $("$python" --version 2>&1);" \
        "name another one: PYTHON=python3.12 sh $0" >&2
    exit 1
fi

stamp=$(cat requirements.lock pyproject.toml | cksum)
if [ -x .venv/bin/hpsearch ] && [ "$(cat .venv/installed 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
echo "installing into .venv (PyTorch is several GB; this takes a minute or more) ..."
[ -x .venv/bin/python ] || "$python" -m venv .venv
# uv installs in seconds what takes pip minutes; where uv cannot be used, pip does the same. Compiled
# here, since each worker process imports most of it: where Python may write no bytecode, that takes
# twice as long.
if .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r scripts/installer.lock &&
    .venv/bin/uv pip install --quiet --compile-bytecode --python .venv/bin/python \
        --require-hashes -r requirements.lock
then
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable .
else
    echo "uv could not be used; going on with pip" >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
        -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
fi
echo "$stamp" >.venv/installed
