//! Tells the program what it was built from and when: `RINGKEEPER_GIT` and `RINGKEEPER_BUILT`.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-changed=.build/version.rs");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-env-changed=RINGKEEPER_GIT");

    // A build from a source archive, or without git, is told by its environment or is `unknown`.
    let revision = std::env::var("RINGKEEPER_GIT").ok().or_else(|| git(&["rev-parse", "--short=10", "HEAD"]));
    // The file that changes with every commit; a missing file would make cargo build anew each time.
    if let Some(head) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && std::path::Path::new(&head).exists()
    {
        println!("cargo:rerun-if-changed={head}");
    }
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.trim().parse().expect("SOURCE_DATE_EPOCH is a number of seconds since 1970"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    };
    println!("cargo:rustc-env=RINGKEEPER_GIT={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=RINGKEEPER_BUILT={}", minute(seconds));
}

/// What git says in the package's directory, if it says anything.
fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// `YYYY-MM-DD HH:MM UTC` of seconds since 1970.
fn minute(seconds: u64) -> String {
    let (mut days, of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02} {:02}:{:02} UTC", month + 1, days + 1, of_day / 3600, of_day / 60 % 60)
}
