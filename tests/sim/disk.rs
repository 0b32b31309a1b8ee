//! A disk that loses what was not synced: files with a volatile cache, names with a journal.
//!
//! Content: a write is in the cache at once and on the medium when it is synced. A power cut keeps any subset of the sectors
//! that are in the cache only. Names: creating, renaming and removing takes effect at once and is durable when the directory is
//! synced; a power cut keeps any prefix of the changes since. A killed process loses nothing that was written, and makes
//! nothing durable either.

use std::collections::{BTreeMap, BTreeSet};

use ringkeeper::stdx::rng::Rng;

/// Of one file, whatever it is called.
type Inode = u64;

#[derive(Clone, Debug, Default)]
struct File {
    /// As processes see it.
    bytes: Vec<u8>,
    /// As it is after a power cut.
    durable: Vec<u8>,
    /// Sectors in which the two differ, or may.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(String, Inode),
    Rename(String, String),
    Remove(String),
}

/// What one server has under its data directory.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Bytes that are written whole or not at all: 512 or 4096.
    sector_bytes: usize,
    files: BTreeMap<Inode, File>,
    names: BTreeMap<String, Inode>,
    names_durable: BTreeMap<String, Inode>,
    /// Since the directory was last synced.
    changes: Vec<NameChange>,
    inode_next: Inode,
    /// Nothing can be made larger.
    pub is_full: bool,
}

/// There is no space left.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Disk {
    pub fn new(sector_bytes: usize) -> Disk {
        Disk {
            sector_bytes,
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            changes: Vec::new(),
            inode_next: 1,
            is_full: false,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub fn exists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub fn read(&self, name: &str) -> Option<&[u8]> {
        Some(&self.files[self.names.get(name)?].bytes)
    }

    /// A new empty file, or an emptied one.
    pub fn create(&mut self, name: &str) -> Result<(), Full> {
        if self.is_full {
            return Err(Full);
        }
        let inode = self.inode_next;
        self.inode_next += 1;
        self.files.insert(inode, File::default());
        self.change(NameChange::Add(name.to_owned(), inode));
        Ok(())
    }

    /// Writes into the cache. Fails where the file would grow and there is no space.
    pub fn write(&mut self, name: &str, offset: usize, bytes: &[u8]) -> Result<(), Full> {
        let is_full = self.is_full;
        let sector_bytes = self.sector_bytes;
        let file = self.file(name);
        let end = offset + bytes.len();
        if end > file.bytes.len() {
            if is_full {
                return Err(Full);
            }
            file.bytes.resize(end, 0);
        }
        file.bytes[offset..end].copy_from_slice(bytes);
        file.dirty.extend(offset / sector_bytes..end.div_ceil(sector_bytes));
        Ok(())
    }

    pub fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), Full> {
        let end = self.file(name).bytes.len();
        self.write(name, end, bytes)
    }

    /// All of the file is on the medium.
    pub fn sync(&mut self, name: &str) {
        let file = self.file(name);
        file.durable.clone_from(&file.bytes);
        file.dirty.clear();
    }

    /// These bytes of the file are on the medium; what else is in the cache may not be.
    pub fn sync_range(&mut self, name: &str, offset: usize, length: usize) {
        let sector_bytes = self.sector_bytes;
        let file = self.file(name);
        let end = (offset + length).min(file.bytes.len());
        if file.durable.len() < end {
            file.durable.resize(end, 0);
        }
        file.durable[offset..end].copy_from_slice(&file.bytes[offset..end]);
        for sector in offset / sector_bytes..end.div_ceil(sector_bytes) {
            file.dirty.remove(&sector);
        }
    }

    /// Replaces what has the new name, if there is something.
    pub fn rename(&mut self, from: &str, to: &str) {
        assert!(self.names.contains_key(from), "{from} is renamed and not there");
        self.change(NameChange::Rename(from.to_owned(), to.to_owned()));
    }

    pub fn remove(&mut self, name: &str) {
        self.change(NameChange::Remove(name.to_owned()));
    }

    pub fn sync_names(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            apply(&mut self.names_durable, change);
        }
        self.collect();
    }

    /// The power goes. Of what is in the cache any part survives.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        let kept = rng.below(self.changes.len() as u64 + 1) as usize;
        self.changes.truncate(kept);
        self.sync_names();
        self.names.clone_from(&self.names_durable);
        self.collect();
        let sector_bytes = self.sector_bytes;
        for file in self.files.values_mut() {
            if file.dirty.is_empty() {
                file.bytes.clone_from(&file.durable);
                continue;
            }
            // Often all or nothing, as a disk that had time or had none.
            let luck = rng.below(4);
            if file.durable.len() < file.bytes.len() {
                // The new length is a change of its own.
                let grown = if rng.below(2) == 0 { file.durable.len() } else { file.bytes.len() };
                file.durable.resize(grown, 0);
            }
            for sector in std::mem::take(&mut file.dirty) {
                let survives = match luck {
                    0 => false,
                    1 => true,
                    _ => rng.below(2) == 0,
                };
                let from = sector * sector_bytes;
                let to = (from + sector_bytes).min(file.bytes.len()).min(file.durable.len());
                if survives && from < to {
                    file.durable[from..to].copy_from_slice(&file.bytes[from..to]);
                }
            }
            file.bytes.clone_from(&file.durable);
        }
    }

    /// Changes bytes on the medium behind everybody's back.
    pub fn damage(&mut self, name: &str, offset: usize, change: impl FnOnce(&mut [u8])) {
        let file = self.file(name);
        change(&mut file.bytes[offset..]);
        file.durable.clone_from(&file.bytes);
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.changes.push(change);
    }

    fn file(&mut self, name: &str) -> &mut File {
        let inode = self.names.get(name).unwrap_or_else(|| panic!("{name} is not there"));
        self.files.get_mut(inode).expect("a name has a file")
    }

    /// Forgets files without any name.
    fn collect(&mut self) {
        let named: BTreeSet<Inode> =
            self.names.values().chain(self.names_durable.values()).copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

fn apply(names: &mut BTreeMap<String, Inode>, change: NameChange) {
    match change {
        NameChange::Add(name, inode) => {
            names.insert(name, inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
        NameChange::Remove(name) => {
            names.remove(&name);
        }
    }
}
