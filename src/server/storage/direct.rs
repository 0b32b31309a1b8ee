//! Files read and written past the page cache where the file system allows it, else through it.
//!
//! Past the cache, because a restart must read the medium and not what a failed sync left in memory, and because a
//! snapshot must neither push the working set out nor pile up dirty pages in front of the log's next sync.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What offset, length and address of a direct transfer must be multiples of; enough for every device in use.
const ALIGN_BYTES: usize = 4096;
/// Bytes of one transfer.
const CHUNK_BYTES: usize = 1 << 20;
/// Written through the cache, this much at most is dirty at once.
const DIRTY_BYTES_MAX: u64 = 8 << 20;

/// A buffer whose bytes begin at an aligned address.
#[derive(Debug)]
struct AlignedBuffer {
    /// Never grows, so it never moves.
    bytes: Vec<u8>,
    from: usize,
}

impl AlignedBuffer {
    fn new() -> AlignedBuffer {
        let bytes = vec![0; CHUNK_BYTES + ALIGN_BYTES];
        let from = bytes.as_ptr().align_offset(ALIGN_BYTES);
        assert!(from < ALIGN_BYTES, "bytes can always be aligned");
        AlignedBuffer { bytes, from }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + CHUNK_BYTES]
    }
}

/// Opens with `O_DIRECT`, or without where that is not to be had. Tells which.
fn open_direct(options: &OpenOptions, path: &Path) -> io::Result<(File, bool)> {
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok((file, true)),
        Err(error) if is_unsupported(&error) => Ok((options.open(path)?, false)),
        Err(error) => Err(error),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

/// Reads a file anywhere, or from front to back.
#[derive(Debug)]
pub struct DirectReader {
    path: PathBuf,
    file: File,
    is_direct: bool,
    buffer: AlignedBuffer,
    /// What `buffer` holds: so many bytes from this offset on.
    filled: usize,
    filled_from: u64,
    /// Of [`Read`].
    position: u64,
}

impl DirectReader {
    pub fn open(path: &Path) -> io::Result<DirectReader> {
        let (file, is_direct) = open_direct(OpenOptions::new().read(true), path)?;
        Ok(DirectReader {
            path: path.to_owned(),
            file,
            is_direct,
            buffer: AlignedBuffer::new(),
            filled: 0,
            filled_from: 0,
            position: 0,
        })
    }

    pub fn file_bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills `into`; an error if the file ends before.
    pub fn read_exact_at(&mut self, mut offset_bytes: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let count = self.read_some(offset_bytes, into)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset_bytes += count as u64;
            into = &mut into[count..];
        }
        Ok(())
    }

    /// Reads some bytes at `offset_bytes`; none at the end of the file.
    fn read_some(&mut self, offset_bytes: u64, into: &mut [u8]) -> io::Result<usize> {
        let is_inside =
            self.filled_from <= offset_bytes && offset_bytes < self.filled_from + self.filled as u64;
        if !is_inside {
            let from = offset_bytes - offset_bytes % ALIGN_BYTES as u64;
            self.filled = 0;
            self.filled = match self.file.read_at(self.buffer.get(), from) {
                Err(error) if self.is_direct && is_unsupported(&error) => {
                    self.file = File::open(&self.path)?;
                    self.is_direct = false;
                    return self.read_some(offset_bytes, into);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    return self.read_some(offset_bytes, into);
                }
                other => other?,
            };
            self.filled_from = from;
        }
        let at = (offset_bytes - self.filled_from) as usize;
        let count = self.filled.saturating_sub(at).min(into.len());
        into[..count].copy_from_slice(&self.buffer.get()[at..at + count]);
        Ok(count)
    }
}

impl Read for DirectReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.read_some(self.position, into)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl crate::txnlog::zookeeper::ReadAt for DirectReader {
    fn read_at(&mut self, offset_bytes: u64, into: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(offset_bytes, into)
    }
}

/// Writes a new file from front to back.
#[derive(Debug)]
pub struct DirectWriter {
    path: PathBuf,
    file: File,
    is_direct: bool,
    buffer: AlignedBuffer,
    filled: usize,
    written_bytes: u64,
    synced_bytes: u64,
}

impl DirectWriter {
    /// Makes the file; an old one of that name is replaced.
    pub fn create(path: &Path) -> io::Result<DirectWriter> {
        let (file, is_direct) =
            open_direct(OpenOptions::new().write(true).create(true).truncate(true), path)?;
        Ok(DirectWriter {
            path: path.to_owned(),
            file,
            is_direct,
            buffer: AlignedBuffer::new(),
            filled: 0,
            written_bytes: 0,
            synced_bytes: 0,
        })
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = bytes.len().min(CHUNK_BYTES - self.filled);
            self.buffer.get()[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == CHUNK_BYTES {
                self.flush(CHUNK_BYTES)?;
            }
        }
        Ok(())
    }

    /// Writes `count` zeros, really.
    pub fn write_zeros(&mut self, count: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let mut left = count;
        while left > 0 {
            let part = left.min(ZEROS.len() as u64);
            self.write(&ZEROS[..part as usize])?;
            left -= part;
        }
        Ok(())
    }

    /// Writes what is left and makes the file durable; its name is the caller's to make so. Returns its bytes.
    pub fn finish(mut self) -> io::Result<u64> {
        let bytes = self.written_bytes + self.filled as u64;
        if self.filled > 0 {
            let padded = self.filled.next_multiple_of(ALIGN_BYTES);
            let filled = self.filled;
            self.buffer.get()[filled..padded].fill(0);
            self.flush(padded)?;
            self.file.set_len(bytes)?;
        }
        self.file.sync_all()?;
        Ok(bytes)
    }

    fn flush(&mut self, count: usize) -> io::Result<()> {
        match self.file.write_all_at(&self.buffer.get()[..count], self.written_bytes) {
            Err(error) if self.is_direct && is_unsupported(&error) => {
                self.file = OpenOptions::new().write(true).open(&self.path)?;
                self.is_direct = false;
                self.file.write_all_at(&self.buffer.get()[..count], self.written_bytes)?;
            }
            other => other?,
        }
        self.written_bytes += count as u64;
        self.filled = 0;
        if !self.is_direct && self.written_bytes - self.synced_bytes >= DIRTY_BYTES_MAX {
            self.file.sync_data()?;
            self.synced_bytes = self.written_bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_odd_pieces_is_read_in_odd_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..2_500_001u32).map(|i| (i / 3) as u8).collect();
        let mut writer = DirectWriter::create(&path).unwrap();
        content.chunks(77_777).for_each(|part| writer.write(part).unwrap());
        assert_eq!(writer.finish().unwrap(), content.len() as u64);
        let mut reader = DirectReader::open(&path).unwrap();
        assert_eq!(reader.file_bytes().unwrap(), content.len() as u64);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(read == content);
        let mut part = vec![0; 1_100_000];
        reader.read_exact_at(1_000_123, &mut part).unwrap();
        assert!(part == content[1_000_123..][..1_100_000]);
        assert!(reader.read_exact_at(content.len() as u64 - 5, &mut [0; 6]).is_err());
    }
}
