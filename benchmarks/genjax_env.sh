#!/usr/bin/env bash
# Make an environment with GenJAX, which needs Python 3.12, for `benchmarks.air_steps --genjax FOLDER/bin/python`.
set -euo pipefail
folder=${1:-.venv-genjax}
"${PYTHON312:-python3.12}" -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check genjax==1.0.14 optax numpy
echo "$folder/bin/python"
