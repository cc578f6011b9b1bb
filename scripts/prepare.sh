#!/usr/bin/env bash
# Makes a corpus, or your own text, ready for fairseq-train.
#
# Usage:   bash scripts/prepare.sh --help
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
python -c 'import sentencepiece' 2>/dev/null || {
    echo "prepare.sh: no sentencepiece here: pip install sentencepiece, or run scripts/setup.sh" >&2
    exit 1
}
exec python -W ignore "$root/scripts" corpora.prepare "$@"
