#!/usr/bin/env bash
# Transparent huge pages: the arena asks for them by madvise.
file=/sys/kernel/mm/transparent_hugepage/enabled
present() { if [ -r "$file" ]; then sed 's/.*\[\(.*\)\].*/\1/' "$file"; else echo unknown; fi; }
wanted() { echo "madvise or always"; }
fits() { case "$(present)" in madvise | always) true ;; *) false ;; esac; }
describe() { echo "Fewer address misses with millions of znodes. echo madvise > $file"; }
"$1"
