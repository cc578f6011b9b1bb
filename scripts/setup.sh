#!/usr/bin/env bash
# Sets up .venv in the checkout: Python packages at the versions of constraints.txt, and
# fairseq_admin itself, editable.
#
# Usage:   bash scripts/setup.sh
#          PYTHON=/path/to/python3.12 bash scripts/setup.sh
# Inputs:  constraints.txt, pyproject.toml, fairseq_admin/__init__.py (the version); pip's own
#          configuration (a CPU build of torch is taken where that offers one); CXX and MAX_JOBS
#          for the one build from source.
# Outputs: .venv; .venv/setup.log (what pip said). Needs no root.
#
# Returns at once when nothing changed. An interrupted run leaves no stamp and the next one goes on
# from there; after a change of the inputs only what differs is installed again.
set -euo pipefail
unset PYTHONHOME PYTHONPATH # packages from elsewhere would count as installed

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
venv=$root/.venv
log=$venv/setup.log
stamp=$venv/setup.stamp # written last: hash of the inputs, checkout, one line about the result
want=$(cat constraints.txt pyproject.toml fairseq_admin/__init__.py scripts/setup.sh | sha256sum |
    cut -d' ' -f1)

say() { printf 'setup: %s\n' "$*"; }
die() {
    printf 'setup: error: %s\n' "$*" >&2
    exit 1
}

# step MESSAGE COMMAND...: says what happens, runs it into the log, shows the log's tail on failure.
step() {
    say "$1"
    printf '\n== %s\n' "$1" >>"$log"
    shift
    if ! "$@" >>"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "the step above failed; everything pip said is in .venv/setup.log"
    fi
}

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# python_problem PYTHON: prints what keeps this interpreter from being used, nothing if it is fine.
# It is run, not only looked up: a version manager's shim exists for versions that are not active.
python_problem() {
    local version
    if ! version=$(python_version "$1"); then
        echo "$1 does not run: install the package python3.11-venv (or 3.12, 3.13)"
    elif [[ $version != 3.1[123] ]]; then
        echo "$1 is Python $version, but 3.11, 3.12 or 3.13 is needed:" \
            "install the package python3.11-venv (or 3.12, 3.13)"
    elif ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "Python $version has no venv module: install the package python$version-venv"
    else
        compiler_problem "$1" "$version"
    fi
}

# compiler_problem PYTHON VERSION: the same for the build of fairseq-fixed.
compiler_problem() {
    local include
    if [[ $2 == 3.12 && $(uname -m) == x86_64 ]]; then
        return # there is a wheel
    fi
    if ! command -v "${CXX:-c++}" >/dev/null || ! command -v "${CC:-cc}" >/dev/null; then
        echo "no C++ compiler, which Python $2 needs to build fairseq-fixed:" \
            "install the package build-essential"
        return
    fi
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    if ! "${CXX:-c++}" -x c++ -fsyntax-only -I"$include" - <<<'#include <Python.h>' 2>/dev/null; then
        echo "the headers of Python $2 are missing: install the package python$2-dev"
    fi
}

# find_python: sets `python` to the first interpreter that has all it needs. 3.11 goes first because
# the versions in constraints.txt were measured there.
find_python() {
    local candidate problem first_problem=""
    for candidate in python3.11 python3.12 python3.13 python3; do
        python_version "$candidate" >/dev/null || continue
        problem=$(python_problem "$candidate")
        if [[ -z $problem ]]; then
            python=$candidate
            return
        fi
        first_problem=${first_problem:-$problem}
    done
    die "${first_problem:-no Python: install the package python3.11-venv (or 3.12, 3.13)}"
}

# exit_if_done: where nothing changed since the last setup, says so and ends.
exit_if_done() {
    [[ -f $stamp && -x $venv/bin/python && $(sed -n 1p "$stamp") == "$want" ]] || return 0
    say "ready: $(sed -n 3p "$stamp")"
    exit
}

# --- what there is already ------------------------------------------------------------------------
if [[ -f $stamp && $(sed -n 2p "$stamp") != "$root" ]]; then
    die ".venv was made for $(sed -n 2p "$stamp") and cannot be moved: remove it and run this again"
fi
if [[ -e $venv/bin/python || -L $venv/bin/python ]]; then
    version=$(python_version "$venv/bin/python") ||
        die "the Python of .venv does not run any more: remove .venv and run this again"
    if [[ -n ${PYTHON:-} && $(python_version "$PYTHON" || true) != "$version" ]]; then
        die ".venv has Python $version, not that of PYTHON=$PYTHON: remove .venv and run this again"
    fi
fi
exit_if_done

# --- what is needed, before anything is written ---------------------------------------------------
if [[ -n ${version:-} ]]; then
    python=$venv/bin/python
elif [[ -n ${PYTHON:-} ]]; then
    python=$PYTHON
else
    find_python
fi
problem=$(python_problem "$python")
[[ -z $problem ]] || die "$problem"

# --- one setup at a time (an interrupted one may have left a pip that still writes) ---------------
mkdir -p "$venv"
exec 9>"$venv/setup.lock"
if ! flock --nonblock 9; then
    say "waiting for another setup of this checkout"
    flock 9
    exit_if_done
fi
rm -f "$stamp"
: >"$log"

# --- install --------------------------------------------------------------------------------------
if [[ ! -x $venv/bin/pip ]]; then
    step "creating .venv with Python $(python_version "$python") (seconds)" \
        "$python" -m venv "$venv"
fi
python=$venv/bin/python
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# A pip that was killed can leave a package with metadata but not all of its files, and the next pip
# would take it for installed. INSTALLER is written after the files.
for info in "$site"/*.dist-info; do
    [[ -e $info/INSTALLER ]] || rm -r "$info"
done

# With build isolation, fairseq-fixed would download a second torch to be built against.
install=("$python" -m pip install --retries 5 --disable-pip-version-check --no-input
    --no-build-isolation --constraint constraints.txt)
export MAX_JOBS="${MAX_JOBS:-$(nproc)}"
unset CUDA_HOME # else fairseq-fixed builds CUDA extensions too, which translation does not use

step "installing torch and build tools (a minute; gigabytes if pip is offered no CPU torch)" \
    "${install[@]}" torch numpy cython setuptools wheel ninja
step "installing fairseq-fixed (2 to 3 minutes where it is built from source)" \
    "${install[@]}" fairseq-fixed
step "installing fairseq_admin with its test and demo tools (half a minute)" \
    "${install[@]}" --editable '.[test]'
# what it needs for other things than the residual method that tests compare with would be a dozen
# packages
step "installing torchscale, for tests (seconds)" "${install[@]}" --no-deps torchscale

# fairseq looks up a bare `--user-dir fairseq_admin` beside its own package. Being on the import path
# itself, this link is also what `import fairseq_admin` finds, so that the two agree.
[[ -L $site/fairseq_admin || ! -e $site/fairseq_admin ]] ||
    die "$site/fairseq_admin is not a link: remove it and run this again"
ln --symbolic --relative --force --no-target-directory "$root/fairseq_admin" "$site/fairseq_admin"

# --- verify ---------------------------------------------------------------------------------------
# check_install (run outside the checkout, where only .venv counts): fairseq's compiled modules load,
# and the plugin is found once, at the link. The plugin is not imported: its own faults are for tests.
check_install() {
    (cd / && "$python" - "$site/fairseq_admin") <<'PYTHON'
import importlib.util
import sys

import fairseq.data.data_utils_fast
import fairseq.data.token_block_utils_fast
import fairseq.libbleu

spec = importlib.util.find_spec("fairseq_admin")
found = list(spec.submodule_search_locations) if spec else []
assert found == sys.argv[1:], f"fairseq_admin is at {found}, expected {sys.argv[1:]}"
PYTHON
}
step "checking the installation (seconds)" check_install

about=$("$python" -c 'import platform, torch
print(f"Python {platform.python_version()}, torch {torch.__version__}")')
printf '%s\n' "$want" "$root" "$about" >"$stamp.tmp"
mv "$stamp.tmp" "$stamp"
say "ready: $about"
