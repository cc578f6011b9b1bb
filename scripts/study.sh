#!/usr/bin/env bash
# Runs the trainings of a study, and makes its page.
#
# Usage:   bash scripts/study.sh --help
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
[[ ! -d $root/.venv/bin ]] || export PATH="$root/.venv/bin:$PATH"
command -v fairseq-hydra-train >/dev/null || {
    echo "$(basename "$0"): no fairseq here: run bash scripts/setup.sh first" >&2
    exit 1
}
# glibc would give every large tensor's memory back to the system and ask for it again: 1.2 times
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 # bytes
exec python -W ignore "$root/scripts" studies.main "$@"
