#!/usr/bin/env bash
# Connections the kernel keeps until they are accepted: a herd of clients reconnects at once.
file=/proc/sys/net/core/somaxconn
present() { if [ -r "$file" ]; then cat "$file"; else echo unknown; fi; }
wanted() { echo "4096 or more"; }
fits() { [ "$(present)" -ge 4096 ]; }
describe() { echo "Beyond it clients are left to retry, seconds later. sysctl net.core.somaxconn=4096"; }
"$1"
