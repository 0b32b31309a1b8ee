#!/usr/bin/env bash
# The hard limit of open files: every client is one.
present() { ulimit -Hn; }
wanted() { echo "65536 or more"; }
fits() { [ "$(present)" = unlimited ] || [ "$(present)" -ge 65536 ]; }
describe() { echo "Clients beyond it wait to be accepted. LimitNOFILE= in the unit, or limits.conf. ringkeeper raises the soft limit itself."; }
"$1"
