#!/usr/bin/env bash
# From the folder of a training to a number that can be published and a model that can be served.
#
# Usage:   bash scripts/evaluate.sh --help
set -euo pipefail

# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
exec python -W ignore "$root/scripts" records.evaluation "$@"
