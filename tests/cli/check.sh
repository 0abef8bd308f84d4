# check.sh - sourced by the test scripts: METAMIX is the command, a fresh folder is entered.
#
#   check CODE ARGUMENT...   runs metamix, which must exit with CODE; keeps its output in the
#                            files out and err
#   has FILE PATTERN         FILE holds a line that the extended regular expression matches
#   lacks FILE PATTERN
#   is FILE TEXT             FILE holds TEXT and a newline, nothing else
#   json FILE                FILE is one JSON value
#
# The script goes on after a failure and exits with 1 at its end.

METAMIX=$1
[ -x "$METAMIX" ] || { echo "usage: $0 METAMIX"; exit 2; }
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
trap 'exit 2' INT TERM
cd "$folder" || exit 2
failures=0
checks=0
line=

fail()
{
    failures=$((failures + 1))
    echo "FAILED: metamix $line"
    echo "    $1"
    sed 's/^/    err: /' err | head -n 5
}

check()
{
    want=$1
    shift
    line=$*
    checks=$((checks + 1))
    "$METAMIX" "$@" >out 2>err </dev/null
    code=$?
    [ "$code" -eq "$want" ] || fail "exit code $code, expected $want"
}

has()
{
    checks=$((checks + 1))
    grep -Eq -e "$2" "$1" || fail "no line of $1 matches: $2"
}

lacks()
{
    checks=$((checks + 1))
    ! grep -Eq -e "$2" "$1" || fail "a line of $1 matches: $2"
}

is()
{
    checks=$((checks + 1))
    printf '%s\n' "$2" | cmp -s - "$1" || fail "$1 is not exactly: $2"
}

json()
{
    command -v python3 >/dev/null || return 0
    checks=$((checks + 1))
    python3 -m json.tool "$1" >/dev/null || fail "$1 is not JSON"
}

finish()
{
    echo "$checks checks, $failures failures"
    [ "$failures" -eq 0 ] && [ "$checks" -gt 0 ]
    exit
}
