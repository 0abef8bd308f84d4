#!/bin/sh
# Help texts and mistakes on the command line.
. "$(dirname "$0")/check.sh"

check 0 --help
has out '^Usage: metamix COMMAND'
has out '^ +9  a run was made with other settings, or verify found a difference$'
check 0 pack --help
has out '^Usage: metamix pack \[OPTION'
has out '--size=N .*$'
lacks out '--batch'
check 2 pack --data d
has err '--out is missing'
check 2 pack --out d
has err '--data is missing'
check 2 pack --data d --out o --quality 0
has err '--quality: expected a whole number from 1 to 100'
check 4 pack --data missing --out o
has err '^metamix pack: missing: No such file or directory'
check 0 --help
for command in train quantize select finetune eval info export verify predict bench report results \
    pack; do
    has out "^  $command "
    check 0 $command --help
    has out "^Usage: metamix $command \[OPTION"
    has out '--json '
    check 0 --help
done

check 0 train --help
has out '--batch=N .*published: 256'
has out '--flip, --no-flip '
has out '\(default: on\)'
has out '--out=DIR, --run=DIR'
lacks out '--lambda'
lacks out '--from'
check 0 eval --help
has out '--image-size=N '
lacks out '--cutout|--train-limit'
check 0 quantize --help
has out '--lambda=X '
has out '--from=PATH '
has out '--weights=TEXT '
has out '--arch=TEXT '

check 0 --version
has out '^metamix [0-9]+\.[0-9]+\.[0-9]+$'
check 2
has err '^Usage: metamix COMMAND'
check 2 unknown
has err "no command 'unknown'"
check 2 train --unknown
has err 'unrecognized option'
check 2 train --data d
has err '--out is missing'
check 2 train --run r
has err '--data is missing'
check 2 quantize --data d --run r
has err '--from is missing'
check 2 eval --data d
has err '--from is missing'
has err 'or --weights'
for command in quantize select finetune eval info; do
    check 2 $command --from f --width 0.5
    has err '--width does not go with --from'
    check 2 $command --from f --weights w
    has err '--weights does not go with --from'
done
check 2 train extra --data d --run r
has err "unexpected argument 'extra'"
check 2 results
has err 'RUN... is missing'

for value in 1x '' ' 1' 1.5 99999999999999999999; do
    check 2 train --data d --run r --batch "$value"
    has err 'batch: expected a whole number'
done
for value in nan inf 1e999 0.1x ''; do
    check 2 train --data d --run r --lr "$value"
    has err 'lr: expected a finite decimal number'
done
check 2 train --data d --run r --threads 257
has err '--threads: expected a whole number from 0 to 256'
check 2 train --data d --run r --cpu-mask sse
has err '--cpu-mask: expected c, avx2, avx512 or all'
check 2 train --data d --run r --no-flip=1
has err "doesn't allow an argument"
check 2 train --data "$(printf '%01024d' 0)" --run r
has err 'data: expected at most 1023 bytes'

check 4 train --data missing --run r
has err '^metamix train: missing: No such file or directory'
check 4 results missing
has err 'missing: left out, there is no result.json in it'
check 4 info --from missing
has err 'missing'
finish
