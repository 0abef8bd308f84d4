#!/bin/sh
# The table of results from files as runs write them, and from broken ones.
. "$(dirname "$0")/check.sh"

mkdir a b broken list odd
cat >a/result.json <<END
{"job": "train", "network": "mobilenet_v2", "float": {"top1": 90.5, "top5": 99, "loss": 0.3,
 "images": 100}, "best": {"top1": 90.5}, "last": {"top1": 90.25}, "gbops": null,
 "target_gbops": null, "mean_activation_bits": null, "phases": [], "seconds": 61, "bits": null}
END
cat >b/result.json <<END
{"job": "quantize", "best": {"top1": 89}, "last": {"top1": 88.75}, "gbops": 3.0851,
 "mean_activation_bits": 2.5, "seconds": 3723.4,
 "bits": [{"name": "first", "weight": 8, "activation": 8},
          {"name": "next", "weight": 4, "activation": 3}]}
END
echo '{"job": ' >broken/result.json
echo '[]' >list/result.json
echo '{"job": 3, "best": [], "last": 1, "gbops": "x", "bits": [1, {"name": "only"}, null]}' \
    >odd/result.json

check 0 results a b
has out '^run +what +last +best +GBOPs +act. bits +time$'
has out '^a +train +90.25 +90.50 +- +- +1:01$'
has out '^b +quantize +88.75 +89.00 +3.085 +2.50 +1:02:03$'
lacks out 'layer'
check 0 results --layers a b
has out '^layer +a +b$'
has out '^first +- +8/8$'
has out '^next +- +4/3$'
check 0 results --json a b
json out
has out '"run": "b"'
check 0 results --layers odd
has out '^odd +- +- +- +- +- +-$'
echo '{"job": "quantize"}' >b/config.json
check 0 report b --out page.html
is out 'page.html: 1 run'
has page.html '<td>88.75</td><td>89.00</td><td>3.0851</td>'
check 0 report b b --json
json out
has report.html 'Accuracy \(best epoch\) against bit operations'
check 4 report a
has err 'a/config.json: '
check 2 report
check 5 results a broken
has err 'broken/result.json: line [0-9]+, byte [0-9]+: '
check 5 results list
has err 'list/result.json: expected one object'
finish
