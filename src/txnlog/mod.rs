//! The shared types of the log writer, until the log itself is merged.

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentId(pub u64);
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

#[derive(Debug)]
pub struct LogWrite {
    pub id: WriteId,
    pub segment: SegmentId,
    pub offset_bytes: u64,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentWork {
    Prepare(SegmentId),
    Retire(SegmentId),
}
