//! The shell: cores, connections, disk, shutdown.
