#!/usr/bin/env bash
# Makes a corpus, or your own text, ready for fairseq-train.
#
# Usage:   bash scripts/prepare.sh --help
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
[[ ! -d $root/.venv/bin ]] || PATH=$root/.venv/bin:$PATH
exec python -W ignore "$root/scripts/prepare.py" "$@"
