#!/usr/bin/env bash
# The demo: the same 12-12 Transformer twice on generated German-English phrases, from the same
# parameters, once as Post-LN, once with Admin; then ten translations, the record and BLEU of both,
# both exported for serving, two figures, and one page with all of it.
#
# Usage:   bash scripts/demo.sh
# Inputs:  none; sets the environment up first (scripts/setup.sh).
# Outputs: runs/demo/ (report.html, curves.png, omegas.png, data/, a folder a condition with
#          eval/record.json and eval/serve/, which `fairseq-admin translate` takes).
#
# On two CPU cores ten to twenty minutes beside the set-up. What is finished is not done again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
bash scripts/setup.sh
export PATH="$root/.venv/bin:$PATH"
# glibc would give every large tensor's memory back to the system and ask for it again: 1.2 times
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 # bytes

bash scripts/prepare.sh phrases --output runs/demo/data
python -W ignore scripts recipes.compare runs/demo/data runs/demo demo_post_ln demo_admin \
    --num-update-checkpoints 3 --quantization int8
fairseq-admin report runs/demo/demo_post_ln runs/demo/demo_admin --output runs/demo/report.html
