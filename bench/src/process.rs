//! What a process has used: processor time, memory, context switches, bytes written. From `/proc`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Instant;

/// Ticks of `/proc/<pid>/stat` per second. Linux shows user space 100 whatever the kernel's own rate is.
pub const TICKS_PER_SECOND: u64 = 100;

/// One look at a process.
#[derive(Clone, Debug)]
pub struct Sample {
    at: Instant,
    /// Processor time of each thread, ns, from schedstat; empty where the kernel keeps none.
    threads: HashMap<u32, u64>,
    /// Of the whole process, threads that have ended included, in ticks of 10 ms.
    user_ticks: u64,
    system_ticks: u64,
    pub resident_bytes: u64,
    voluntary_switches: u64,
    involuntary_switches: u64,
    written_bytes: u64,
}

/// What was used between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub elapsed_seconds: f64,
    /// User and system time together, ns.
    pub cpu_ns: u64,
    /// Of it in user mode, as far as ticks tell.
    pub user_ns: u64,
    /// At the second look.
    pub resident_bytes: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
    pub written_bytes: u64,
}

impl Sample {
    pub fn of(pid: u32) -> io::Result<Sample> {
        let mut sample = Sample {
            at: Instant::now(),
            threads: HashMap::new(),
            user_ticks: 0,
            system_ticks: 0,
            resident_bytes: 0,
            voluntary_switches: 0,
            involuntary_switches: 0,
            written_bytes: 0,
        };
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let entry = entry?;
            let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A thread may end between the listing and the reading.
            if let Ok(schedstat) = fs::read_to_string(entry.path().join("schedstat"))
                && let Some(run_ns) = number(schedstat.split_whitespace().next())
            {
                sample.threads.insert(thread, run_ns);
            }
            if let Ok(status) = fs::read_to_string(entry.path().join("status")) {
                sample.voluntary_switches += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
                sample.involuntary_switches += field(&status, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            }
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        (sample.user_ticks, sample.system_ticks) =
            ticks(&stat).ok_or_else(|| io::Error::other("a line of /proc/<pid>/stat is not as expected"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        sample.resident_bytes = field(&status, "VmRSS:").unwrap_or(0) * 1024;
        // Another user's process does not show its i/o.
        if let Ok(io) = fs::read_to_string(format!("/proc/{pid}/io")) {
            sample.written_bytes = field(&io, "write_bytes:").unwrap_or(0);
        }
        Ok(sample)
    }

    /// What was used since `earlier`.
    pub fn since(&self, earlier: &Sample) -> Usage {
        let tick_ns = 1_000_000_000 / TICKS_PER_SECOND;
        let user_ticks = self.user_ticks.saturating_sub(earlier.user_ticks);
        let system_ticks = self.system_ticks.saturating_sub(earlier.system_ticks);
        let ticks_ns = (user_ticks + system_ticks) * tick_ns;
        // Exact to the nanosecond, unless a thread took its time with it when it ended.
        let exact =
            !earlier.threads.is_empty() && earlier.threads.keys().all(|id| self.threads.contains_key(id));
        let cpu_ns = if exact {
            let before = |id| earlier.threads.get(id).copied().unwrap_or(0);
            self.threads.iter().map(|(id, run_ns)| run_ns.saturating_sub(before(id))).sum()
        } else {
            ticks_ns
        };
        let user_share =
            if ticks_ns == 0 { 0.0 } else { user_ticks as f64 / (user_ticks + system_ticks) as f64 };
        Usage {
            elapsed_seconds: self.at.duration_since(earlier.at).as_secs_f64(),
            cpu_ns,
            user_ns: (cpu_ns as f64 * user_share) as u64,
            resident_bytes: self.resident_bytes,
            voluntary_switches: self.voluntary_switches.saturating_sub(earlier.voluntary_switches),
            involuntary_switches: self.involuntary_switches.saturating_sub(earlier.involuntary_switches),
            written_bytes: self.written_bytes.saturating_sub(earlier.written_bytes),
        }
    }
}

impl Usage {
    /// Of several processes over the same interval.
    pub fn sum(usages: &[Usage]) -> Usage {
        let mut sum = Usage::default();
        for usage in usages {
            sum.elapsed_seconds = sum.elapsed_seconds.max(usage.elapsed_seconds);
            sum.cpu_ns += usage.cpu_ns;
            sum.user_ns += usage.user_ns;
            sum.resident_bytes += usage.resident_bytes;
            sum.voluntary_switches += usage.voluntary_switches;
            sum.involuntary_switches += usage.involuntary_switches;
            sum.written_bytes += usage.written_bytes;
        }
        sum
    }

    /// Processor time as a share of one core.
    pub fn busy(&self) -> f64 {
        if self.elapsed_seconds == 0.0 { 0.0 } else { self.cpu_ns as f64 / 1e9 / self.elapsed_seconds }
    }

    pub fn switches(&self) -> u64 {
        self.voluntary_switches + self.involuntary_switches
    }
}

/// Time all processes together were given on some cores, and time the hypervisor took from them: to know who else was there.
#[derive(Clone, Copy, Debug)]
pub struct CoreTime {
    busy_ticks: u64,
    stolen_ticks: u64,
}

impl CoreTime {
    pub fn of(cores: &[usize]) -> io::Result<CoreTime> {
        Ok(core_ticks(&fs::read_to_string("/proc/stat")?, cores))
    }

    /// Seconds the cores worked, and seconds they were taken away, since `earlier`.
    pub fn since(&self, earlier: &CoreTime) -> (f64, f64) {
        let seconds = |after: u64, before: u64| after.saturating_sub(before) as f64 / TICKS_PER_SECOND as f64;
        (seconds(self.busy_ticks, earlier.busy_ticks), seconds(self.stolen_ticks, earlier.stolen_ticks))
    }
}

fn core_ticks(stat: &str, cores: &[usize]) -> CoreTime {
    let mut time = CoreTime { busy_ticks: 0, stolen_ticks: 0 };
    for core in cores {
        let name = format!("cpu{core} ");
        let Some(line) = stat.lines().find_map(|line| line.strip_prefix(&name)) else { continue };
        let ticks: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // user nice system idle iowait irq softirq steal
        let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else { continue };
        time.busy_ticks += user + nice + system + irq + softirq;
        time.stolen_ticks += steal;
    }
    time
}

/// User and system ticks: fields 14 and 15, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((number(fields.next())?, number(fields.next())?))
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    number(line.split_whitespace().next())
}

fn number(text: Option<&str>) -> Option<u64> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_an_odd_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 111 222 0 0";
        assert_eq!(ticks(stat), Some((111, 222)));
    }

    #[test]
    fn cores_are_summed() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu1 10 0 0 0 0 0 0 1 0 0\ncpu10 99 0 0 0 0 0 0 0 0 0\n";
        let time = core_ticks(stat, &[0, 1]);
        assert_eq!((time.busy_ticks, time.stolen_ticks), (1 + 2 + 3 + 6 + 7 + 10, 9));
    }

    #[test]
    fn work_done_shows() {
        let pid = std::process::id();
        let before = Sample::of(pid).unwrap();
        let mut sum = 0u64;
        while before.at.elapsed().as_millis() < 30 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(1));
        }
        let used = Sample::of(pid).unwrap().since(&before);
        assert!(used.cpu_ns > 0 && used.resident_bytes > 0, "{used:?}");
        assert!(used.user_ns <= used.cpu_ns);
    }
}
