#!/bin/sh
# How the cost of a training step grows: with the batch, with the number of candidates, with threads
# and without AVX-512; in the precision `auto` where nothing else is said. Nothing else should run on
# the machine.
#
#   bench/scaling.sh [SIZE]           image size, default 224
#   TRAIN_STEP, SECONDS_EACH          the program and the time of each row, when other than usual
set -eu
cd "$(dirname "$0")/.."
program=${TRAIN_STEP:-build/release/bench/train_step}
seconds=${SECONDS_EACH:-8}
size=${1:-224}

# Milliseconds of a step: float, weight training, bit-meta.
steps() {
    "$program" --size "$size" --floor 0 --seconds "$seconds" "$@" |
        awk '/^  (float|weight|bit-meta)/ { printf "%s ", $(NF - 1) }'
}

echo "mobilenet_v2, $size x $size"
printf '\n%-12s%26s\n%-12s%12s%14s%12s\n' "" "ms for one image" batch float weights bit-meta
for batch in 16 32 64 128 256; do
    steps --precision auto --batch "$batch" |
        awk -v b="$batch" '{ printf "%-12d%12.2f%14.2f%12.2f\n", b, $1 / b, $2 / b, $3 / b }'
done

# In turn, the least of each: a difference of two steps is small beside what the machine drifts.
printf '\n%-12s%12s%12s%16s\n' candidates bit-meta "one more" "of a W4 step"
for round in 1 2 3; do
    for branches in 1 2 3 4; do
        echo "$branches $(steps --precision auto --branches "$branches")"
    done
done | awk '
    !w4 || $3 < w4 { w4 = $3 }
    !($1 in meta) || $4 < meta[$1] { meta[$1] = $4 }
    END {
        for (n = 1; n <= 4; n++) {
            printf "%-12d%12.1f", n, meta[n]
            if (n > 1) printf "%12.1f%16.2f", meta[n] - meta[n - 1], (meta[n] - meta[n - 1]) / w4
            print ""
        }
    }'

row() {
    printf '%-20s' "$1"
    shift
    steps "$@" | awk '{ printf "%12.1f%14.1f%12.1f\n", $1, $2, $3 }'
}
printf '\n%-20s%12s%14s%12s\n' "ms for a step" float weights bit-meta
for precision in auto f32; do
    row "$precision, 1 thread" --precision $precision --threads 1
    row "$precision, 2 threads" --precision $precision --threads 2
done
row "f32, AVX2 alone" --precision f32 --cpu-mask avx2
