#!/usr/bin/env bash
# Runs a recipe of a published experiment, from download to BLEU.
#
# Usage:   bash scripts/run.sh --help
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
[[ ! -d $root/.venv/bin ]] || export PATH="$root/.venv/bin:$PATH"
exec python -W ignore "$root/scripts/run.py" "$@"
