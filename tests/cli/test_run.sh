#!/bin/sh
# Every job once, on 64 images of random bytes: what is written, printed and refused.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/data.sh"

common='--data data --batch 32 --threads 1'
net='--width 0.1 --epochs 1'

check 0 train $common $net --run float
has err '^float 1/1: loss [0-9.]+, top-1 '
has out '^float: mobilenet_v2, [0-9]+ MACs, 8 x 8 x 1 image, 2 classes$'
has out '^last epoch +[0-9.]+ +100.00 '
check 0 train $common $net --run float --json --quiet
json out
has out '"job": "train"'
lacks err .
has float/report.html '<td class="left">train</td><td>[0-9]'
check 0 train --threads 1 --recipe float/config.json --run recipe --epochs 2 --quiet
has recipe/config.json '"epochs": 2'
has recipe/config.json '"width": 0.1'
check 4 train $common --recipe missing.json --run recipe2
exec 9<float
flock 9
check 4 train $common $net --run float
has err 'float: another process is at work'
exec 9<&-
check 9 train $common --width 0.1 --epochs 2 --run float
has err 'epochs 1; now it is 2'

check 0 eval $common --from float --json
json out
has out '^  "images": 16$'
check 0 info --from float
has out '^mobilenet_v2, 8 x 8 x 1 image, 2 classes, small stem'

check 0 quantize $common --from float --run both --candidates 2,4 --target W4A3 \
    --stage-a-epochs 1 --stage-b-epochs 1
has out '^budget: [0-9.]+ GBOPs, reached [0-9.]+: met, under by '
has out '^stage b +1 '
has out '^features.1.conv.0.0 +depthwise +[0-9]+ +4 +[24]  ####?#?#?$|^features.1.conv.0.0 .*  ##$'
has both/report.html '<title>features.1.conv.0.0: activations [24] bits, weights 4</title>'
check 0 quantize $common --from float --run small \
    --recipe "$(dirname "$0")/../../recipes/mobilenet_v2_small.json" --image-size 8 --cutout 2 \
    --stage-b-epochs 1 --bn-batches 1 --quiet
has small/config.json '"ema_decay": 0.999'
check 0 select $common --from float --run select --candidates 2,4 --quiet
lacks err .
check 0 finetune $common --from select --run second --stage-a-epochs 1 --stage-b-epochs 1
check 0 finetune $common --from float --bits W4A4 --run uniform --stage-a-epochs 1 \
    --stage-b-epochs 1 --profile
has out '  4.00$'
has out '^stage a: a step of [0-9.]+ ms \(mean of 2\) is [0-9.]+ times the floor'
has out '^features.1.conv.0.0 +depthwise +8 x 8 +[0-9.]+ +[0-9.]+ +[0-9.]+% '
has out '^all layers '
checks=$((checks + 1))
awk '$2 ~ /^(conv|depthwise|linear)$/ { sum += $8 } /^all layers/ { all += $4 }
    END { exit sum < all - 6 || sum > all + 6 || all < 20 }' out || fail 'shares of layers do not add up'
check 2 finetune $common --from float --bits W4A1 --run refused

compare="compare $common --from float --run compared --candidates 2,4 --stage-a-epochs 0
    --stage-b-epochs 1"
check 2 $compare W4A4 W4
has err "target 'W4'; expected a uniform network such as W4A3"
check 0 $compare W4A4 W8A3 --layers
has out '^float +train '
has out '^compared/uniform-W4A4 +finetune .* 4.00 '
has out '^compared/metamix-W8A3 +quantize '
has out '^features.1.conv.0.0 +- +4/4 +4/[24] +8/3 +8/[24]$'
has err '^compared/metamix-W4A4$'
has compared/metamix-W8A3/config.json '"target": "W8A3"'
has compared/metamix-W8A3/report.html '<td class="left">quantize</td><td>[0-9]'
has compared/report.html 'Accuracy \(best epoch\) against bit operations'
check 0 $compare W4A4 --json
json out
has out '"run": "compared/metamix-W4A4"'
lacks out 'W8A3'
check 0 $compare --quiet
lacks err .
has out '^compared/metamix-W4A3 '

check 2 $compare W4A4 --with uniform,uniform
has err "with is 'uniform,uniform'; expected some of uniform, unfixed, joint, greedy, random"
check 2 $compare W4A4 --with metamix
check 2 $compare W4A4 --with uniform,
check 0 $compare W4A4 --with greedy,uniform,random
has out '^compared/greedy-W4A4 +quantize '
has out '^compared/random-W4A4 +quantize '
has err '^greedy 1/1: loss [0-9.]+, top-1 '
has compared/greedy-W4A4/config.json '"search": "greedy"'
has compared/metamix-W4A4/config.json '"search": "metamix"'
check 0 select $common --from float --run joint --candidates 2,4 --search joint --quiet
check 0 instability $common --from joint
has out '^layer +kind +2 bits +4 bits$'
has out '^features.1.conv.0.0 +depthwise +[0-9.]+ +0.0000$'
has out '^mean +depthwise +[0-9.]+ +0.0000$'
has out '^mean +all +[0-9.]+ +0.0000$'
lacks out '^classifier'
check 0 instability $common --from float --json
json out
has out '^  "candidates": \['
check 4 instability $common --from nowhere
has joint/report.html '<td class="left">search</td><td class="left">joint</td>'

check 0 eval $common --from both
check 0 eval $common --from both --json
cp out every
for mask in avx2 c; do
    check 0 eval $common --from both --json --cpu-mask $mask
    cmp -s out every || fail "--cpu-mask $mask: another evaluation"
done
check 0 train $common $net --run narrow --cpu-mask avx2 --quiet
check 0 info --from uniform
has out '^mean activation bits +4.000$'
check 0 info --from uniform --weight-bits 8
has out '^features.1.conv.0.0 +depthwise .* 8 +4 '
check 0 info --from float
has out '^mean activation bits +32.000$'
check 0 export --from both --out both.mix --json
json out
has out '"bytes": '"$(wc -c <both.mix)"'$'
check 0 export --from both.mix --out again.mix
cmp -s both.mix again.mix || fail 'a .mix file written from a .mix file differs'
for format in 'onnx' 'onnx --onnx-types int8' 'qonnx'; do
    check 0 export --from both --format $format --out both.onnx
    check 0 export --from both.mix --format $format --out again.onnx
    cmp -s both.onnx again.onnx || fail "$format: another file from the .mix file"
done
check 0 export --from both --format c --out both.c
has err '^both.c: constants [0-9]+ bytes .* static memory [0-9]+ bytes'
sed -n 's/^both.c: .*weights \([0-9]*\),.*/\1/p' err >weights
check 0 info --from both --json
has out "^  \"weight_bytes\": $(cat weights),$"
[ -s both.h ] || fail 'both.h is missing'
check 2 export --from both --format c --out both.txt
check 2 export --from both --format onnx --onnx-types int4 --out both.onnx
check 4 export --from both --format onnx --out missing/both.onnx
check 0 verify both.mix --against both --data data
has out '^16 images, 16 with the same top-1, logits differ by 0.00e\+00 of the largest$'
has out '^every code is the same$'
check 0 verify both.mix --against both --data data --json --quiet --images 3
json out
has out '^  "agree": true'
has out '^  "images": 3,'
"$(dirname "$0")/save_trace.py" 8 8 1 2 trace.safetensors
check 9 verify both.mix --against trace.safetensors
has out '^no layer was compared, the logits alone$'
has out '^both.mix and trace.safetensors are NOT the same network$'
check 2 verify both.mix again.mix --against both --data data
has err "unexpected argument 'again.mix'"
check 0 export --from uniform --out uniform.mix
check 9 verify uniform.mix --against both --data data
has out '^uniform.mix and both are NOT the same network$'
check 2 verify both.mix --against float --data data
has err 'float has no quantized weights'
check 2 export --from float --out float.mix
has err 'float is a float network'
check 2 export --from select --out select.mix
has err 'weights are not quantized yet'
check 4 export --from both --out missing/both.mix
check 0 results --layers float both select second uniform
has out '^uniform +finetune '
has out '^features.0.0 +- +8/8 +8/8 +8/8 +8/8$'
check 4 quantize $common --from nowhere --run refused-too
has err nowhere

# A stop in the middle, gone on with, ends where an undisturbed run does.
line='train, stopped'
long="$common --width 0.1 --epochs 30"
"$METAMIX" train $long --run stopped >out 2>err &
job=$!
while ! grep -q '^float 2/' err && kill -0 $job 2>/dev/null; do sleep 0.05; done
kill -TERM $job 2>/dev/null
wait $job
code=$?
if [ $code -eq 10 ]; then
    has err '^  .*metamix train --data data .* --run stopped$'
else
    [ $code -eq 0 ] || fail "exit code $code, expected 10, or 0 when it was done before"
fi
check 0 train $long --run stopped
check 0 train $long --run straight
best=$(sed -n '/"best"/,/}/s/.*"top1": \([0-9.]*\).*/\1/p' straight/result.json)
has out "^best epoch +$(printf '%.2f' "$best") "
last=$(sed -n '/"last"/,/}/s/.*"top1": \([0-9.]*\).*/\1/p' straight/result.json)
has out "^last epoch +$(printf '%.2f' "$last") "
cmp -s stopped/best.safetensors straight/best.safetensors || fail 'the stopped run differs'
finish
