#!/usr/bin/env bash
# Makes a corpus, or your own text, ready for fairseq-train.
#
# Usage:   bash scripts/prepare.sh --help
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
[[ ! -d $root/.venv/bin ]] || PATH=$root/.venv/bin:$PATH
command -v fairseq-hydra-train >/dev/null || {
    echo "$(basename "$0"): no fairseq here: run bash scripts/setup.sh first" >&2
    exit 1
}
python -c 'import sentencepiece' 2>/dev/null || {
    echo "prepare.sh: no sentencepiece here: pip install sentencepiece, or run scripts/setup.sh" >&2
    exit 1
}
exec python -W ignore "$root/scripts" corpora.prepare "$@"
