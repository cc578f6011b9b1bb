#!/usr/bin/env bash
# Runs a recipe of a published experiment, from download to BLEU.
#
# Usage:   bash scripts/run.sh --help
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -W ignore "$root/scripts" recipes.run "$@"
