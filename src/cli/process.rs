//! Other processes: is one running, is it ours, make it stop.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, setsid};

/// Takes this process out of the terminal's session, so that it outlives it. It must not lead a group yet; a process
/// that was just started never does.
pub fn leave_terminal() {
    if let Err(error) = setsid() {
        eprintln!("cannot leave the terminal's session: {error}");
    }
}

/// The number in a pid file. `None`: no such file, or no number in it.
pub fn read_pid(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    Pid::from_raw(text.trim().parse().ok().filter(|pid| *pid > 0)?)
}

/// Whether the process runs this same program. A pid file outlives its process, and the number may be another's by now;
/// neither is ever signalled.
pub fn is_ours(pid: Pid) -> bool {
    let name_of = |link: &Path| {
        let target = std::fs::read_link(link).ok()?;
        let name = target.file_name()?.to_string_lossy().into_owned();
        // An upgrade replaced the file under the running process.
        Some(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
    };
    let theirs = name_of(Path::new(&format!("/proc/{}/exe", pid.as_raw_nonzero())));
    theirs.is_some() && theirs == name_of(Path::new("/proc/self/exe"))
}

/// Asks the process to end and waits for it. `false`: it still runs after `patience`.
pub fn terminate(pid: Pid, patience: Duration) -> bool {
    // Opened before the signal, so that it stands for this process and no later one of the same number.
    let handle = pidfd_open(pid, PidfdFlags::empty());
    if kill_process(pid, Signal::TERM).is_err() {
        return !is_ours(pid);
    }
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return !is_ours(pid);
        }
        match &handle {
            Ok(handle) => {
                let timeout =
                    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
                match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout)) {
                    Ok(1..) => return true,
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => return !is_ours(pid),
                }
            }
            // Kernels before 5.3 have no handles on processes: look again and again.
            Err(_) if !is_ours(pid) => return true,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn pid_files_hold_one_positive_number() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        assert_eq!(read_pid(&file), None);
        for (text, pid) in
            [("123", Some(123)), ("123\n", Some(123)), ("", None), ("x", None), ("0", None), ("-5", None)]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_pid(&file).map(|pid| pid.as_raw_nonzero().get()), pid, "{text:?}");
        }
    }

    #[test]
    fn this_process_is_ours_and_another_program_is_not() {
        assert!(is_ours(rustix::process::getpid()));
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&other);
        assert!(!is_ours(pid));
        assert!(terminate(pid, Duration::from_secs(10)));
        other.wait().unwrap();
    }
}
