#!/usr/bin/env bash
# Runs a recipe of a published experiment, from download to BLEU.
#
# Usage:   bash scripts/run.sh --help
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
[[ ! -d $root/.venv/bin ]] || export PATH="$root/.venv/bin:$PATH"
command -v fairseq-hydra-train >/dev/null || {
    echo "$(basename "$0"): no fairseq here: run bash scripts/setup.sh first" >&2
    exit 1
}
exec python -W ignore "$root/scripts" recipes.run "$@"
