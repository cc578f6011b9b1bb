#!/usr/bin/env bash
# Runs the trainings of a study, and makes its page.
#
# Usage:   bash scripts/study.sh --help
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
# glibc would give every large tensor's memory back to the system and ask for it again: 1.2 times
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 # bytes
exec python -W ignore "$root/scripts" studies.main "$@"
