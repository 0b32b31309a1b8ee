#!/usr/bin/env bash
# Tells the owner of a host what would serve ringkeeper better, what it brings and how to look at it. Reads only.
#
#   tuning/check.sh [data directory]
#
# Each knob is a file in knobs/ that answers `describe`, `present` and `wanted`. Exit code: how many knobs differ.
set -u
cd "$(dirname "$0")" || exit 125
export DATA_DIR=${1:-.}

differing=0
for knob in knobs/*.sh; do
    name=$(basename "$knob" .sh)
    present=$(bash "$knob" present)
    wanted=$(bash "$knob" wanted)
    if [ "$present" = unknown ]; then
        printf '  ?   %-16s cannot be read here\n' "$name"
    elif bash "$knob" fits; then
        printf '  ok  %-16s %s\n' "$name" "$present"
    else
        differing=$((differing + 1))
        printf '  !   %-16s %s, wanted %s\n' "$name" "$present" "$wanted"
        bash "$knob" describe | sed 's/^/                       /'
    fi
done
echo "$differing knobs differ"
exit "$differing"
