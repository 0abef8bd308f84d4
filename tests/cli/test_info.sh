#!/bin/sh
# The published costs, and both forms of info.
here=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/check.sh"

while read -r bits gbops; do
    check 0 info --arch mobilenet_v2 --weight-bits 4 --act-bits "$bits" --json
    json out
    has out "^  \"gbops\": $gbops,$"
done <<END
2 3.085
3 4.239
4 5.394
5 6.549
8 10.013
END

check 0 info --bits W4A3
has out '^GBOPs +4.239$'
check 0 info --json
has out '^  "network": "mobilenet_v2",$'
has out '^  "macs": 300774272,$'
has out '^  "parameters": 3504872,$'
has out '^  "weight_bytes": 2375312,$'
check 0 info --bits W4A3 --json
has out '^  "weight_bytes": 2375312,$'
has out '^  "layers": 53,$'
has out '^  "searched_layers": 51,$'
has out '^  "float_gbops": 307.993,$'
has out '^  "stem": "standard",$'

check 0 info --size 32 --width 0.5 --classes 10 --channels 1
has out '^mobilenet_v2, 32 x 32 x 1 image, 10 classes, small stem'
has out '^features.0.0 +conv +1 +16 +3 +1 +32 '
check 0 info --size 32 --width 0.1 --stem standard
has out 'standard stem'

onnx=$here/../onnx
check 0 info --arch "$onnx/torch_v3.onnx" --bits W4A3
has out '^torch_v3, 16 x 16 x 3 image, 4 classes, standard stem'
has out '^features.1.block.2.fc1 +conv +16 +8 +1 +1 +1 '
has out '^classifier.1 +linear '
check 0 info --arch "$onnx/torch_v3.onnx" --size 32 --classes 10 --json
json out
has out '^  "size": 32,$'
has out '^  "classes": 10,$'
check 7 info --arch "$onnx/refused/sigmoid.onnx"
has err "node 'bad' \\(Sigmoid\\): this operator is not supported"
check 4 info --arch none.onnx

check 2 info --act-bits 9
check 2 info --act-bits 1
has err '--act-bits: expected'
check 2 info --weight-bits 33
has err '--weight-bits: expected 2..8 or 32'
for bits in W4 W4A W4A9 A4W4 W4A3x W4A-3 'W 4A3' W100A3 ''; do
    check 2 info --bits "$bits"
    has err '--bits: expected W4A3 or the like'
done
check 2 info --arch "$onnx/torch_v3.onnx" --channels 1
has err 'torch_v3.onnx brings its own'
check 2 info --from run --size 32
has err '--size does not go with --from'
check 2 info --stem none
has err '--stem: expected'
check 2 info --arch none
has err 'none'
check 2 info --width 0
check 2 info --size 0
has err '--size: expected'
finish
