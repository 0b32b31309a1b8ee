//! Stores that change while the server runs: looked at again and again, and taken for new connections once they are
//! sound. What is wrong with them is a warning, and the last good ones stay.
//!
//! Looking at time, size and inode costs nothing and works on every file system, also where a file is replaced by
//! another of the same name or hangs behind a link that changes, as Kubernetes does it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::StoreError;
use crate::config::Tls;
use crate::config::tls::{Password, Store};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Settings that may be replaced. Cheap to clone; all clones see the same.
pub struct Live<T>(Arc<Mutex<T>>);

impl<T> Clone for Live<T> {
    fn clone(&self) -> Live<T> {
        Live(self.0.clone())
    }
}

impl<T: Clone + Send + 'static> Live<T> {
    pub fn new(value: T) -> Live<T> {
        Live(Arc::new(Mutex::new(value)))
    }

    /// What a connection that begins now is to use.
    pub fn get(&self) -> T {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has a thread read the stores again with `load` whenever one of their files changed, for as long as anybody else
    /// holds this. `loaded` is how they were before they were read for the first time: [`stamps`].
    pub fn keep_fresh(
        &self,
        tls: Tls,
        loaded: Stamps,
        load: fn(&Tls) -> Result<T, StoreError>,
    ) -> std::io::Result<()> {
        let live = Arc::downgrade(&self.0);
        std::thread::Builder::new().name("tls-reload".to_owned()).spawn(move || {
            crate::io::sys::lower_thread_priority(10);
            watch(&live, &tls, loaded, load);
        })?;
        Ok(())
    }
}

fn watch<T>(live: &Weak<Mutex<T>>, tls: &Tls, mut seen: Stamps, load: fn(&Tls) -> Result<T, StoreError>) {
    loop {
        std::thread::park_timeout(LOOK_EVERY);
        let Some(live) = live.upgrade() else { return };
        let now = stamps(tls);
        // What is being written changes once more: then it is read once more.
        if now == seen {
            continue;
        }
        seen = now;
        match load(tls) {
            Ok(settings) => {
                *live.lock().unwrap_or_else(PoisonError::into_inner) = settings;
                tracing::info!("{}*: key and trust stores were read again, for new connections", tls.prefix);
            }
            Err(error) => tracing::warn!("{error}; the stores as they were before stay in use"),
        }
    }
}

/// How the files of some settings look from outside, in the order of their keys.
pub type Stamps = Vec<Option<(i64, i64, u64, u64)>>;

pub fn stamps(tls: &Tls) -> Stamps {
    let of_store = |store: &Store| -> Vec<PathBuf> {
        let password = match &store.password {
            Password::File(path) => Some(path.clone()),
            Password::Given(_) => None,
        };
        [Some(store.location.clone()), password].into_iter().flatten().collect()
    };
    let files = of_store(&tls.key_store).into_iter().chain(tls.trust_store.iter().flat_map(of_store));
    let stamp = |path: PathBuf| {
        let file = fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.size(), file.ino()))
    };
    files.map(stamp).collect()
}
