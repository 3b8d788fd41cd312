#!/bin/sh
# Retrain the demo model: sh train_demo.sh [WORK_DIRECTORY]
# Needs npm, tar and a Python environment with edgeprune[export,demo], scikit-image and scikit-learn.
# Two CPU cores without bf16 units: about 45 minutes for training alone, a quarter of an hour each for features and figures.
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
features() { [ -f "features/$1-$2.pt" ] || python "$here/features.py" features "$1" "$2" "$3"; }

(features train 0 1000 && features train 2000 600 && features train 3200 600) &
first=$!
features val 0 60 && features train 1000 1000 && features train 2600 600 && features train 3800 600
wait "$first"
# The shipped weights: four sittings with a restart of the optimiser between them, as MODEL_CARD.md tells.
train() { [ -f "$1/final.pt" ] || python "$here/train.py" features "$@"; }
train run1 --steps 400 --stop 100 --batch 6
train run2 --steps 550 --start 100 --stop 150 --batch 6 --init run1/final.pt
train run3 --steps 460 --start 150 --stop 250 --batch 12 --init run2/final.pt
train run4 --steps 350 --start 250 --stop 320 --batch 8 --learning-rate 2.5e-3 --init run3/final.pt
features test 0 190
features small 0 100
python "$here/evaluate.py" run4/final.pt features figures.json
echo "To ship it: python $here/ship.py $work/run4/final.pt"
