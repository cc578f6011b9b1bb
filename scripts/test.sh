#!/usr/bin/env bash
# Sets up the environment, lints, and runs the tests.
#
# Usage:   bash scripts/test.sh [pytest arguments]
#            bash scripts/test.sh                    lint and the quick suite
#            bash scripts/test.sh -m slow            lint and the tests that train for real
#            bash scripts/test.sh tests/unit -x      lint and one folder, stop at the first failure
# Inputs:  OMP_NUM_THREADS (default 1: the tests start several processes, which would otherwise
#          fight for the cores); CI=true makes the tests that need a browser fail without one.
# Needs:   Chromium and its driver, else the tests of the report's page are skipped; as root on
#          Debian they are installed.
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

# install_browser: Debian's packages; Ubuntu's chromium is a snap, which needs more than apt
install_browser() {
    apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver
}
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    if [[ $(id -u) != 0 ]] || ! grep -qsx 'ID=debian' /etc/os-release; then
        echo "test: no chromium and chromedriver, the report's page is not opened in a browser"
    elif DEBIAN_FRONTEND=noninteractive install_browser >.venv/browser.log 2>&1; then
        echo "test: installed chromium and chromedriver for the tests of the report's page"
    else
        echo "test: chromium could not be installed, see .venv/browser.log: no browser tests"
    fi
fi

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# a process a core, at most four: each has its own server of commands and its own fixtures
exec "$bin/python" -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile \
    --no-loadscope-reorder "$@"
