#!/usr/bin/env bash
# Starts every role, walks the smoke test, checks the health of each, and cleans up.
#   deploy/smoke.sh --local    as processes on this machine, beside a Redis of their own
#   deploy/smoke.sh            through deploy/compose.yaml, with docker or podman
# --free-ports, or --hub 9000 --event-mux 9100 …, where the usual ports are taken; --help lists the rest.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[[ -x $(command -v -- "$python" || true) ]] || { echo "smoke: $python is not there; run \`make setup\`, or set PYTHON" >&2; exit 2; }
PYTHONPATH=$root exec "$python" -m deploy.smoke "$@"
