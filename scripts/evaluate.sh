#!/usr/bin/env bash
# From the folder of a training to a number that can be published and a model that can be served.
#
# Usage:   bash scripts/evaluate.sh --help
# Needs:   fairseq_admin installed, its commands on the PATH or in .venv.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
[[ ! -d $root/.venv/bin ]] || export PATH="$root/.venv/bin:$PATH"
exec python -W ignore "$root/scripts" records.evaluation "$@"
