#!/bin/sh
# Retrain the demo model: sh train_demo.sh [WORK_DIRECTORY]
# Needs npm, tar, a C++ compiler and a Python environment with edgeprune[export,demo], scikit-image and scikit-learn.
# Two CPU cores with bf16 products (AVX-512 BF16 or AMX): features 15 minutes, training an hour, figures 15 minutes.
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
evaluate() { python "$here/evaluate.py" run/final.pt features "figures-$1.json" --share "$1/2"; }

(for start in 0 2000 4000 6000; do features train $start 1000; done && features test 0 200) &
first=$!
features val 0 60
for start in 1000 3000 5000 7000; do features train $start 1000; done
features small 0 200
wait "$first"
[ -f run/final.pt ] || python "$here/train.py" features run --compiled --check-every 250 --check-scenes 40
evaluate 0 &
first=$!
evaluate 1
wait "$first"
echo "To ship it: python $here/ship.py $work/run/final.pt"
