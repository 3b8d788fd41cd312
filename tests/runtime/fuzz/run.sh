#!/bin/sh
# usage: tests/runtime/fuzz/run.sh BUILD_DIR SECONDS [TARGET...]      fuzzes each target for SECONDS; stops at a finding
# What the fuzzer learns stays in BUILD_DIR/corpus; a finding is written to BUILD_DIR/findings and fails the run.
set -eu
build=$1 seconds=$2
shift 2
here=$(dirname "$0")
[ $# -gt 0 ] || set -- tokenizer_json manifest image prompt
for target in "$@"; do
    mkdir -p "$build/corpus/$target" "$build/findings"
    "$build/fuzz_$target" -max_total_time="$seconds" -timeout=120 -rss_limit_mb=4096 -max_len=8192 -print_final_stats=1 \
        -verbosity="${FUZZ_VERBOSITY:-1}" -dict="$here/$target.dict" -artifact_prefix="$build/findings/$target-" \
        "$build/corpus/$target" "$here/corpus/$target"
done
