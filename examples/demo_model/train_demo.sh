#!/bin/sh
# Retrain the demo model: sh train_demo.sh [WORK_DIRECTORY]
# Needs npm, tar and a Python environment with edgeprune[export,demo], scikit-image and scikit-learn.
# Two CPU cores without bf16 units: about an hour and a half, of which an hour is training. 4 GB of memory, 2 GB of disk.
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
python "$here/train.py" features run
features test 0 200
features small 0 120
python "$here/evaluate.py" run/final.pt features run/figures.json
echo "To ship it: python $here/ship.py $work/run/final.pt"
