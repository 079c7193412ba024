#!/bin/sh
# The main job from a fresh clone: installs, searches on 1,797 real images, exports the best model.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh
.venv/bin/hpsearch search
.venv/bin/hpsearch export --force
