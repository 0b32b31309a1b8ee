#!/usr/bin/env bash
# The processors' frequency governor: a core that naps answers late.
present() { cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor 2>/dev/null || echo unknown; }
wanted() { echo performance; }
fits() { [ "$(present)" = performance ]; }
describe() { echo "Shorter tails at low load. cpupower frequency-set -g performance"; }
"$1"
