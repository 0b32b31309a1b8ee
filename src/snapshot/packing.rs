//! Whole-file compression of snapshots (`snapshot.compression.method`).
//!
//! `gz` is gzip. `snappy` is the stream of snappy-java, big-endian: magic `82 53 4e 41 50 50 59 00`, int version 1, int
//! lowest compatible version 1, then chunks of int length and that many bytes of one raw snappy block. A chunk
//! whose length reads as the magic begins another such stream. Source: snappy-java `SnappyOutputStream`,
//! `SnappyInputStream`; ZooKeeper `SnapStream`.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const SNAPPY_VERSION: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
/// Bytes in one chunk, unpacked, as snappy-java chooses them.
const SNAPPY_CHUNK_BYTES: usize = 32 << 10;
/// Snappy packs no tighter than 64 bytes into 3.
const SNAPPY_RATIO_MAX: usize = 22;

/// How a snapshot file is packed; the file's extension says which.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Packing {
    #[default]
    Plain,
    Gzip,
    Snappy,
}

impl Packing {
    pub const ALL: [Packing; 3] = [Packing::Plain, Packing::Gzip, Packing::Snappy];

    /// The value of `snapshot.compression.method`; anything unknown is plain, as in ZooKeeper.
    pub fn of_method(name: &str) -> Packing {
        match name.to_ascii_lowercase().as_str() {
            "gz" => Packing::Gzip,
            "snappy" => Packing::Snappy,
            _ => Packing::Plain,
        }
    }

    /// With its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Packing::Plain => "",
            Packing::Gzip => ".gz",
            Packing::Snappy => ".snappy",
        }
    }
}

/// The content of a packed stream.
pub fn unpack<'a>(packing: Packing, stream: impl Read + 'a) -> Box<dyn Read + 'a> {
    match packing {
        Packing::Plain => Box::new(stream),
        Packing::Gzip => Box::new(MultiGzDecoder::new(stream)),
        Packing::Snappy => Box::new(SnappyReader::new(stream)),
    }
}

struct SnappyReader<R> {
    stream: R,
    packed: Vec<u8>,
    chunk: Vec<u8>,
    at: usize,
    has_begun: bool,
}

impl<R: Read> SnappyReader<R> {
    fn new(stream: R) -> SnappyReader<R> {
        SnappyReader { stream, packed: Vec::new(), chunk: Vec::new(), at: 0, has_begun: false }
    }

    /// Unpacks the next chunk; false at the end.
    fn next_chunk(&mut self) -> io::Result<bool> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        loop {
            let mut length = [0; 4];
            if !read_all_or_nothing(&mut self.stream, &mut length)? {
                return match self.has_begun {
                    true => Ok(false),
                    false => Err(invalid("an empty file is no snappy stream".into())),
                };
            }
            if length == SNAPPY_MAGIC[..4] {
                let mut rest = [0; 12];
                self.stream.read_exact(&mut rest)?;
                if rest[..4] != SNAPPY_MAGIC[4..] {
                    return Err(invalid("the header is not that of a snappy-java stream".into()));
                }
                let compatible = u32::from_be_bytes(rest[8..].try_into().expect("four bytes"));
                if compatible > 1 {
                    return Err(invalid(format!("the snappy stream needs version {compatible}, 1 is known")));
                }
                self.has_begun = true;
                continue;
            }
            let length = u32::from_be_bytes(length);
            if !self.has_begun || length > i32::MAX as u32 {
                return Err(invalid(format!(
                    "{length:#x} is no header or chunk length of a snappy-java stream"
                )));
            }
            self.packed.clear();
            let taken = (&mut self.stream).take(u64::from(length)).read_to_end(&mut self.packed)?;
            if taken < length as usize {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a snappy chunk ends early"));
            }
            let bytes =
                snap::raw::decompress_len(&self.packed).map_err(|error| invalid(error.to_string()))?;
            if bytes > SNAPPY_RATIO_MAX * self.packed.len() {
                return Err(invalid(format!("a snappy chunk of {length} bytes claims to hold {bytes}")));
            }
            self.chunk.resize(bytes, 0);
            let filled = snap::raw::Decoder::new()
                .decompress(&self.packed, &mut self.chunk)
                .map_err(|error| invalid(error.to_string()))?;
            self.chunk.truncate(filled);
            self.at = 0;
            if filled > 0 {
                return Ok(true);
            }
        }
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.at == self.chunk.len() && !self.next_chunk()? {
            return Ok(0);
        }
        let count = into.len().min(self.chunk.len() - self.at);
        into[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// False if the stream is at its end; an error if it ends inside `into`.
fn read_all_or_nothing(stream: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < into.len() {
        match stream.read(&mut into[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a snappy chunk ends early")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Packs a stream given in parts.
pub struct Packer {
    kind: PackerKind,
}

enum PackerKind {
    Plain,
    Gzip(GzEncoder<Vec<u8>>),
    Snappy {
        has_begun: bool,
        /// Less than one chunk.
        waiting: Vec<u8>,
    },
}

impl Packer {
    pub fn new(packing: Packing) -> Packer {
        Packer {
            kind: match packing {
                Packing::Plain => PackerKind::Plain,
                Packing::Gzip => PackerKind::Gzip(GzEncoder::new(Vec::new(), Compression::default())),
                Packing::Snappy => PackerKind::Snappy { has_begun: false, waiting: Vec::new() },
            },
        }
    }

    /// Appends to `out` what is ready after this part.
    pub fn part(&mut self, part: &[u8], out: &mut Vec<u8>) {
        match &mut self.kind {
            PackerKind::Plain => out.extend_from_slice(part),
            PackerKind::Gzip(encoder) => {
                encoder.write_all(part).expect("writing to memory does not fail");
                out.append(encoder.get_mut());
            }
            PackerKind::Snappy { has_begun, waiting } => {
                snappy_begin(has_begun, out);
                let mut rest = part;
                while waiting.len() + rest.len() >= SNAPPY_CHUNK_BYTES {
                    let (now, later) = rest.split_at(SNAPPY_CHUNK_BYTES - waiting.len());
                    waiting.extend_from_slice(now);
                    snappy_chunk(waiting, out);
                    waiting.clear();
                    rest = later;
                }
                waiting.extend_from_slice(rest);
            }
        }
    }

    pub fn finish(self, out: &mut Vec<u8>) {
        match self.kind {
            PackerKind::Plain => {}
            PackerKind::Gzip(encoder) => {
                out.append(&mut encoder.finish().expect("writing to memory does not fail"));
            }
            PackerKind::Snappy { mut has_begun, waiting } => {
                snappy_begin(&mut has_begun, out);
                if !waiting.is_empty() {
                    snappy_chunk(&waiting, out);
                }
            }
        }
    }
}

fn snappy_begin(has_begun: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(has_begun, true) {
        out.extend_from_slice(&SNAPPY_MAGIC);
        out.extend_from_slice(&SNAPPY_VERSION);
    }
}

fn snappy_chunk(chunk: &[u8], out: &mut Vec<u8>) {
    let packed = snap::raw::Encoder::new().compress_vec(chunk).expect("a chunk is far below snappy's limit");
    out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
    out.extend_from_slice(&packed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_in_parts_unpacks() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
        for packing in Packing::ALL {
            for part_bytes in [1_000, 32 << 10, 300_000, content.len()] {
                let mut packer = Packer::new(packing);
                let mut packed = Vec::new();
                content.chunks(part_bytes).for_each(|part| packer.part(part, &mut packed));
                packer.finish(&mut packed);
                let mut unpacked = Vec::new();
                unpack(packing, &packed[..]).read_to_end(&mut unpacked).unwrap();
                assert!(unpacked == content, "{packing:?} in parts of {part_bytes}");
            }
        }
    }

    #[test]
    fn a_snappy_chunk_cannot_claim_much_more_than_it_has() {
        let mut packed = SNAPPY_MAGIC.to_vec();
        packed.extend_from_slice(&SNAPPY_VERSION);
        packed.extend_from_slice(&[0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        let error = unpack(Packing::Snappy, &packed[..]).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("claims to hold"), "{error}");
    }
}
