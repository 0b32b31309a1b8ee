#!/usr/bin/env bash
# The file system below the data directory: the log wants O_DIRECT on written blocks.
present() { stat -f -c %T "${DATA_DIR:-.}" 2>/dev/null || echo unknown; }
wanted() { echo "xfs or ext2/ext3, on a device of its own"; }
fits() { case "$(present)" in xfs | ext2/ext3) true ;; *) false ;; esac; }
describe() { echo "Elsewhere the log may have to run buffered with fdatasync (the start line says which). dataLogDir on xfs or ext4."; }
"$1"
