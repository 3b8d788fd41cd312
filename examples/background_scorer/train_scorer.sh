#!/bin/sh
# Train the background scorer of the demo grid: sh train_scorer.sh [WORK_DIRECTORY]
# Needs npm, tar and a Python environment with edgeprune[export,demo], scikit-image and scikit-learn. About five minutes
# of one free core.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/work}
mkdir -p "$work"
cd "$work"
if [ ! -f package/emoji.json ]; then
    npm pack --silent emoji-datasource-google@16.0.0
    tar xzf emoji-datasource-google-16.0.0.tgz package/emoji.json package/LICENSE package/img/google/64
fi
EDGEPRUNE_DEMO_EMOJI=$work/package
export EDGEPRUNE_DEMO_EMOJI
python "$here/train.py" demo.safetensors
python "$here/trunk.py" demo.safetensors
echo "To ship it: copy $work/demo.safetensors to edgeprune/assets/background, demo.json to examples/background_scorer/figures.json"
