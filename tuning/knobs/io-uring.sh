#!/usr/bin/env bash
# Whether io_uring may be used: without it sockets run on epoll and the log on pwrite and fdatasync.
file=/proc/sys/kernel/io_uring_disabled
present() { if [ -r "$file" ]; then cat "$file"; else echo unknown; fi; }
wanted() { echo 0; }
fits() { [ "$(present)" = 0 ]; }
describe() { echo "Slower, as safe. sysctl kernel.io_uring_disabled=0; containers need io_uring in their seccomp profile."; }
"$1"
