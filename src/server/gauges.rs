//! What only the machine knows: descriptors, sizes of directories, memory, names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::admin::prometheus::ProcessNow;
use crate::metrics::ProcessGauges;

/// How often the gauges are read afresh.
const REFRESH: Duration = Duration::from_secs(5);

/// Keeps `gauges` fresh on a thread of its own for as long as anybody else holds them.
pub(super) fn keep_fresh(
    gauges: Arc<ProcessGauges>,
    data_dir: PathBuf,
    log_dir: PathBuf,
) -> std::io::Result<()> {
    refresh(&gauges, &data_dir, &log_dir);
    std::thread::Builder::new().name("gauges".to_owned()).spawn(move || {
        crate::io::sys::lower_thread_priority(10);
        while Arc::strong_count(&gauges) > 1 {
            refresh(&gauges, &data_dir, &log_dir);
            std::thread::park_timeout(REFRESH);
        }
    })?;
    Ok(())
}

fn refresh(gauges: &ProcessGauges, data_dir: &Path, log_dir: &Path) {
    gauges.open_file_descriptors.set(fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64));
    gauges.max_file_descriptors.set(files_limit().unwrap_or(0));
    gauges.data_dir_bytes.set(directory_bytes(data_dir));
    gauges.log_dir_bytes.set(directory_bytes(log_dir));
    gauges.resident_bytes.set(status_kib("/proc/self/status", "VmRSS:").unwrap_or(0) * 1024);
    let machine = status_kib("/proc/meminfo", "MemTotal:").unwrap_or(0) * 1024;
    let group =
        fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    gauges.memory_limit_bytes.set(group.unwrap_or(machine).min(machine));
}

/// Bytes of the files in a directory, not of those below it.
fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|file| file.is_file())
        .map(|file| file.len())
        .sum()
}

fn files_limit() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn status_kib(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Ticks of a processor's time in a second, on every Linux there is. Source: `sysconf(_SC_CLK_TCK)`.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc` tells of this process now; zeros where it tells nothing.
pub(super) fn process_now() -> ProcessNow {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let booted = fs::read_to_string("/proc/stat").unwrap_or_default();
    let booted = booted.lines().find_map(|line| line.strip_prefix("btime ")?.parse().ok());
    process_of(&stat, booted.unwrap_or(0.0))
}

/// `stat` is a line of `/proc/<pid>/stat`, `booted_seconds` when the machine began.
fn process_of(stat: &str, booted_seconds: f64) -> ProcessNow {
    // The name may hold anything but ends with the last parenthesis; field 3 follows it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field =
        |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    ProcessNow {
        cpu_seconds: (field(14) + field(15)) / TICKS_PER_SECOND,
        start_time_seconds: booted_seconds + field(22) / TICKS_PER_SECOND,
        virtual_bytes: field(23) as u64,
        threads: field(20) as u64,
    }
}

/// Who runs the server.
pub(super) fn user() -> String {
    ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| if rustix::process::getuid().is_root() { "root" } else { "ringkeeper" }.to_owned())
}

/// What `envi` tells of the machine and the process.
pub(super) fn environment() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    vec![
        ("host.name", read("/proc/sys/kernel/hostname")),
        ("os.name", "Linux".to_owned()),
        ("os.arch", std::env::consts::ARCH.to_owned()),
        ("os.version", read("/proc/sys/kernel/osrelease")),
        ("user.name", user()),
        ("user.home", variable("HOME")),
        ("user.dir", std::env::current_dir().map(|dir| dir.display().to_string()).unwrap_or_default()),
    ]
}
