# shellcheck shell=bash
# Sourced by the scripts that need fairseq: the environment of this checkout, or the one at hand.
# Sets `root`, the checkout.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
[[ ! -d $root/.venv/bin ]] || export PATH="$root/.venv/bin:$PATH"
command -v fairseq-hydra-train >/dev/null || {
    echo "$(basename "$0"): no fairseq here: run bash scripts/setup.sh first" >&2
    exit 1
}
