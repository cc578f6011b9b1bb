#!/usr/bin/env bash
# The demo: the same 12-12 Transformer twice on generated German-English phrases, from the same
# parameters, once as Post-LN, once with Admin; then the record and BLEU of both, both exported for
# serving, and one page with their curves, omegas and translations.
#
# Usage:   bash scripts/demo.sh
# Inputs:  none; sets the environment up first (scripts/setup.sh).
# Outputs: runs/demo/ (report.html, data/, records/, a folder a condition with eval/record.json and
#          eval/serve/, which `fairseq-admin translate` takes).
#
# On two CPU cores ten to twenty minutes beside the set-up. What is finished is not done again.
set -euo pipefail

if (($#)); then
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    [[ $1 == --help ]] && exit 0 || exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
export PYTHONUTF8=1 # text is UTF-8, whatever the locale
bash scripts/setup.sh
export PATH="$root/.venv/bin:$PATH"

bash scripts/prepare.sh phrases --output runs/demo/data
bash scripts/study.sh demo --jobs 2 --data runs/demo/data --runs runs --results runs/demo/records
fairseq-admin report runs/demo/demo_post_ln runs/demo/demo_admin --output runs/demo/report.html
