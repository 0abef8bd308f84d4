#!/bin/sh
# Every network of the zoo at every candidate bit-width, shortly trained and untrained: the integer
# runtime against the engine's evaluation on all validation images, code for code.
#
#   scripts/verify_zoo.sh DATA RUNS [NETWORK...]     DATA: a folder of train/ and val/
#   METAMIX, IMAGES, BITS      the command, images of each comparison, activation bits
#   KINDS                      trained, untrained or, the default, both
#
# "Trained" is a network that has learned something, not one that is good: an epoch on 10,000
# images in float (five for MobileNet v3, whose statistics move slowly) and a tenth of that with
# 4-bit weights; "untrained" has taken steps too small to change anything but statistics. Training
# looks at ten validation images a class only.
set -eu
cd "$(dirname "$0")/.."
metamix=${METAMIX:-build/release/metamix}
images=${IMAGES:-10000}
data=$1 runs=$2
shift 2
networks=${*:-mobilenet_v2 mobilenet_v3_large mobilenet_v3_small resnet18 resnet34 resnet50 resnet101}

few=$runs/few
mkdir -p "$few"
ln -sfn "$(realpath "$data/train")" "$few/train"
for class in "$data"/val/*; do
    mkdir -p "$few/val/${class##*/}"
    find "$(realpath "$class")" -type f | sort | head -10 |
        while read -r image; do ln -sf "$image" "$few/val/${class##*/}"; done
done

bad=0

try() { # LOG COMMAND...; a failure is told and ends the script
    log=$1
    shift
    "$@" >> "$log" 2>&1 || { echo "failed: $*" >&2; tail -5 "$log" >&2; exit 1; }
}

verify() { # network, trained|untrained, float images, quantized images, learning rates
    float=$runs/$1-$2 epochs=1
    case $1-$2 in mobilenet_v3*-trained) epochs=5 ;; esac
    [ -f "$float/best.safetensors" ] ||
        try "$float.log" "$metamix" train --quiet --data "$few" --run "$float" --arch "$1" \
            --epochs "$epochs" --warmup-epochs 0 --batch 32 --train-limit "$3" --lr "$5" --seed 1
    for bits in ${BITS:-2 3 4 8}; do
        run=$float-a$bits
        try "$run.log" "$metamix" finetune --quiet --data "$few" --run "$run" --from "$float" \
            --bits "W4A$bits" --stage-a-epochs 0 --stage-b-epochs 1 --train-limit "$4" --finetune-lr "$6" --seed 1
        try "$run.log" "$metamix" export --from "$run" --out "$run.mix"
        "$metamix" verify "$run.mix" --against "$run" --data "$data" --images "$images" --json \
            > "$run.json" || bad=$?
        [ -s "$run.json" ] || exit "$bad"
        printf '%-20s %-10s W4A%s  ' "$1" "$2" "$bits"
        python3 - "$run.json" << 'PY'
import json, sys
v = json.load(open(sys.argv[1]))
codes = sum(l["codes"] for l in v["layers"])
different = sum(l["different"] for l in v["layers"])
print(f'{v["images"]:6d} images, {v["same_top1"]:6d} with the same top-1, '
      f'{different} of {codes:.3e} codes differ', flush=True)
PY
        rm -rf "$run" "$run.mix"
    done
}

for network in $networks; do
    for kind in ${KINDS:-trained untrained}; do
        case $kind in
        trained) verify "$network" trained 10000 1000 0.02 5e-4 ;;
        *) verify "$network" untrained 256 128 1e-9 1e-9 ;;
        esac
    done
done
exit $bad
