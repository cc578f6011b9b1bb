#!/usr/bin/env bash
# Sets up the environment, lints, and runs the tests.
#
# Usage:   bash scripts/test.sh [pytest arguments]
#            bash scripts/test.sh                    lint and the quick suite
#            bash scripts/test.sh -m slow            lint and the tests that train for real
#            bash scripts/test.sh tests/unit -x      lint and one folder, stop at the first failure
# Inputs:  OMP_NUM_THREADS (default 1: the tests start several processes, which would otherwise
#          fight for the cores).
# Outputs: the exit code of the first step that fails, else pytest's; pytest's summary comes last.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
bash scripts/setup.sh

bin=.venv/bin
"$bin/ruff" check .
"$bin/ruff" format --check .
if [[ ! -x $bin/shellcheck ]]; then
    echo "test: no shellcheck for this platform, shell scripts not checked"
elif ! git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    echo "test: not a git checkout, shell scripts not checked"
else
    git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run |
        xargs -0 "$bin/shellcheck"
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "$bin/python" -m pytest "$@"
