#!/usr/bin/env bash
# lm-eval itself over Score and Generate, by lm_eval_check.py. Not part of tests/run.sh: lm-eval and what it needs take more
# than a minute to install. Needs PyPI and built binaries (SLUICE_BIN_DIR, default build/bin); keeps its environment in
# build/lm-eval. Usage: tests/client/python/lm_eval_check.sh [> tests/client/python/lm_eval_check.txt]
set -euo pipefail
cd "$(dirname "$0")/../../.."

venv=build/lm-eval
[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check './client/python[lm-eval]' 'lm-eval[api]' transformers grpcio-tools grpcio-status >&2
echo "# tests/client/python/lm_eval_check.sh, lm-eval $("$venv/bin/pip" show lm-eval | sed -n 's/^Version: //p'), classics-12m"
"$venv/bin/python" tests/client/python/lm_eval_check.py
