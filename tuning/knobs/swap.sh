#!/usr/bin/env bash
# Swap in use: a page of the tree that must come from disk stalls a whole core.
present() { awk 'NR > 1 { used += $4 } END { print used + 0 " KiB used" }' /proc/swaps 2>/dev/null || echo unknown; }
wanted() { echo "0 KiB used"; }
fits() { [ "$(present)" = "$(wanted)" ]; }
describe() { echo "Give the host memory, or swapoff -a; MemorySwapMax=0 in the unit keeps this server out of it."; }
"$1"
