//! What the machine says of itself and of this process, for `envi`, `conf`, `dirs` and `mntr`.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use crate::config::ListenAddress;
use crate::metrics::ProcessGauges;

/// Files of one directory that are looked at; a data directory has some dozens.
const FILES_MAX: usize = 100_000;

/// The environment as `envi` tells it, without the keys only a Java machine has.
pub fn environment() -> Vec<(&'static str, String)> {
    let kernel = |file: &str| text_of(&format!("/proc/sys/kernel/{file}"));
    let variable = |name: &str| std::env::var(name).ok();
    // Java's names of architectures.
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    };
    [
        ("host.name", kernel("hostname")),
        ("os.name", kernel("ostype")),
        ("os.arch", Some(arch.to_owned())),
        ("os.version", kernel("osrelease")),
        ("java.io.tmpdir", Some(std::env::temp_dir().display().to_string())),
        ("user.name", variable("USER").or_else(|| variable("LOGNAME"))),
        ("user.home", variable("HOME")),
        ("user.dir", std::env::current_dir().ok().map(|directory| directory.display().to_string())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// Looks again at descriptors, memory and the two directories (`dataDir/version-2`, `dataLogDir/version-2`). What cannot be
/// found out stays as it was. Takes some milliseconds and reads directories: for the housekeeper, not for a core.
pub fn refresh(gauges: &ProcessGauges, data_directory: &Path, log_directory: &Path) {
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory being read.
        gauges.open_file_descriptors.set((descriptors.count() as u64).saturating_sub(1));
    }
    let limits = text_of("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = open_files_limit(&limits) {
        gauges.max_file_descriptors.set(limit);
    }
    let status = text_of("/proc/self/status").unwrap_or_default();
    if let Some(kilobytes) = kilobytes_of(&status, "VmRSS:") {
        gauges.resident_bytes.set(kilobytes * 1024);
    }
    let memory = text_of("/proc/meminfo").unwrap_or_default();
    let machine = kilobytes_of(&memory, "MemTotal:").map(|kilobytes| kilobytes * 1024);
    let group = text_of("/sys/fs/cgroup/memory.max").and_then(|text| text.parse().ok());
    if let Some(limit) = machine.into_iter().chain(group).min() {
        gauges.memory_limit_bytes.set(limit);
    }
    gauges.data_dir_bytes.set(directory_bytes(data_directory));
    gauges.log_dir_bytes.set(directory_bytes(log_directory));
}

/// Bytes of the files in a directory, as they count for `dataDirSize`; zero if it is not there.
fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.take(FILES_MAX).filter_map(|entry| entry.ok()?.metadata().ok());
    sizes.filter(fs::Metadata::is_file).map(|metadata| metadata.len()).sum()
}

fn text_of(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The soft limit in `/proc/<pid>/limits`; `unlimited` is the largest number Java knows.
fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(i64::MAX as u64),
        number => number.parse().ok(),
    }
}

fn kilobytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The addresses to listen on. The wildcard is IPv6's, which takes IPv4 too, or IPv4's where the machine has no IPv6;
/// a name is all it stands for.
pub fn resolve(address: &ListenAddress) -> Result<Vec<SocketAddr>, String> {
    let Some(host) = &address.host else {
        let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
        let wildcard: SocketAddr =
            if has_ipv6 { ([0u16; 8], address.port).into() } else { ([0u8; 4], address.port).into() };
        return Ok(vec![wildcard]);
    };
    let found = (host.as_str(), address.port).to_socket_addrs();
    let mut addresses: Vec<SocketAddr> = found.map_err(|error| format!("{host}: {error}"))?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(format!("{host} has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_tell_of_this_process() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("log.1"), [0; 1000]).unwrap();
        fs::write(directory.path().join("log.2"), [0; 24]).unwrap();
        let gauges = ProcessGauges::default();
        refresh(&gauges, directory.path(), Path::new("/nowhere"));
        assert_eq!((gauges.data_dir_bytes.get(), gauges.log_dir_bytes.get()), (1024, 0));
        assert!(gauges.open_file_descriptors.get() >= 3);
        assert!(gauges.max_file_descriptors.get() >= gauges.open_file_descriptors.get());
        assert!(gauges.resident_bytes.get() > 0);
        assert!(gauges.memory_limit_bytes.get() >= gauges.resident_bytes.get());
    }

    #[test]
    fn limits_and_sizes_are_read_from_the_kernels_tables() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288   files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
        assert_eq!(open_files_limit("Max open files  unlimited unlimited files"), Some(i64::MAX as u64));
        assert_eq!(open_files_limit(""), None);
        assert_eq!(kilobytes_of("VmPeak: 1 kB\nVmRSS:\t  2048 kB\n", "VmRSS:"), Some(2048));
    }

    #[test]
    fn addresses_resolve_to_what_listens() {
        assert_eq!(resolve(&ListenAddress::new("127.0.0.1", 5)).unwrap(), ["127.0.0.1:5".parse().unwrap()]);
        assert_eq!(resolve(&ListenAddress::new("::1", 5)).unwrap(), ["[::1]:5".parse().unwrap()]);
        let wildcard = resolve(&ListenAddress::new("", 5)).unwrap();
        assert!(wildcard.len() == 1 && wildcard[0].ip().is_unspecified());
        assert!(!resolve(&ListenAddress::new("localhost", 5)).unwrap().is_empty());
        assert!(resolve(&ListenAddress::new("no such host", 5)).is_err());
    }

    #[test]
    fn the_environment_has_no_empty_values() {
        let environment = environment();
        assert!(environment.iter().any(|(key, _)| *key == "os.name"));
        assert!(environment.iter().all(|(_, value)| !value.is_empty()));
    }
}
