#!/usr/bin/env bash
# Makes every figure of results/figures anew: of each residual method at initialization, and of the
# demo's two models.
#
# Usage:   bash scripts/figures.sh [FOLDER]
# Inputs:  none; runs the demo first (scripts/demo.sh; what is finished is not done again).
# Outputs: FOLDER (default: results/figures): a JSON and a PNG an analysis.
#
# From nothing 25 to 40 minutes on two CPU cores, of which the demo takes half; beside the set-up.
set -euo pipefail

if [[ ${1:-} == -* || $# -gt 1 ]]; then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [[ $1 == --help ]] && exit 0 || exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
out=$(realpath -m "${1:-$root/results/figures}")
cd "$root"
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
bash scripts/demo.sh
export PATH="$root/.venv/bin:$PATH" OMP_NUM_THREADS=1
mkdir -p "$out"

runs=runs/demo
data=$runs/data
methods=(post-ln pre-ln admin analytic deepnorm rezero keel)
checkpoints=("$runs"/demo_{post_ln,admin}/checkpoint_4_{800,900,1000}.pt)
ends=("$runs"/demo_{post_ln,admin}/checkpoint_last.pt)
paper=(--parameter-init paper --share-all-embeddings --dropout 0)
like_demo=("${paper[@]}" --encoder-layers 12 --decoder-layers 12
    --encoder-embed-dim 96 --encoder-ffn-embed-dim 192
    --encoder-attention-heads 4 --decoder-attention-heads 4)

# analyze NAME ANALYSIS ARGUMENTS...: FOLDER/NAME.json and FOLDER/NAME.png
analyze() {
    local name=$1
    shift
    fairseq-admin analyze "$@" --output "$out/$name"
}

# the longest by itself, on one core
analyze output_change output-change "${methods[@]}" "${paper[@]}" --tokens 200 \
    --encoder-embed-dim 96 --encoder-ffn-embed-dim 384 &
longest=$!
trap 'kill "$longest" 2>/dev/null || true' EXIT

analyze dependency dependency "${methods[@]}" "${like_demo[@]}"
analyze dependency_training dependency post-ln admin "${ends[@]}" --data "$data/bin" \
    "${like_demo[@]}"
analyze gradients gradients "${methods[@]}" "${paper[@]}" --seeds 2 --depths 6 12 24 48 \
    --encoder-embed-dim 64 --encoder-ffn-embed-dim 256
analyze gradients_training gradients post-ln admin "${checkpoints[@]}" --data "$data/bin" \
    "${like_demo[@]}"
analyze updates updates "${checkpoints[@]}" --data "$data/bin"
analyze norms norms "${methods[@]}" "${paper[@]}" --seeds 3 --encoder-layers 18 \
    --decoder-layers 18 --encoder-embed-dim 128 --encoder-ffn-embed-dim 128 # lemma 2: FFN as wide
analyze omega omega "${checkpoints[@]:3}"
analyze curves curves post-ln="$runs/demo_post_ln" admin="$runs/demo_admin"
analyze errors errors post-ln="$runs/demo_post_ln/eval/generate.txt" \
    admin="$runs/demo_admin/eval/generate.txt" --target-lang en \
    --reference "$data/raw/test.en" --train-text "$data/tok/train.en"
wait "$longest"
