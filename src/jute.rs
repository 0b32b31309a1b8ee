//! Jute, the wire encoding: big-endian integers, length-prefixed bytes, counted vectors.
//!
//! [`Reader`] borrows from the bytes it reads and never allocates by a length from the wire;
//! the `put_*` functions append to a `Vec<u8>`. Source: ZooKeeper `BinaryInputArchive`, `BinaryOutputArchive`.
//!
//! | type        | encoding                                                             |
//! |-------------|----------------------------------------------------------------------|
//! | byte, bool  | 1 byte; any byte but zero reads as true                              |
//! | int, long   | 4, 8 bytes                                                           |
//! | buffer      | int length, bytes; length -1 is null, any other negative an error    |
//! | ustring     | as buffer, UTF-8; malformed sequences become U+FFFD                  |
//! | vector      | int count, elements; -1 is null, other negatives read as empty       |

use std::borrow::Cow;

use thiserror::Error;

/// Why bytes could not be read as the record they were taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JuteError {
    #[error("record ends early: {wanted} more bytes wanted at offset {offset}, {left} left")]
    Truncated { offset: usize, wanted: usize, left: usize },
    #[error("length {length} at offset {offset} is out of range")]
    Length { offset: usize, length: i32 },
}

/// Reads one record from borrowed bytes, front to back.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, offset: 0 }
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.offset..]
    }

    pub fn is_empty(&self) -> bool {
        self.offset == self.bytes.len()
    }

    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], JuteError> {
        let left = self.bytes.len() - self.offset;
        if left < count {
            return Err(JuteError::Truncated { offset: self.offset, wanted: count, left });
        }
        let taken = &self.bytes[self.offset..self.offset + count];
        self.offset += count;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], JuteError> {
        Ok(self.take(N)?.try_into().expect("take gives the count asked for"))
    }

    pub fn u8(&mut self) -> Result<u8, JuteError> {
        Ok(self.array::<1>()?[0])
    }

    pub fn bool(&mut self) -> Result<bool, JuteError> {
        Ok(self.u8()? != 0)
    }

    #[inline]
    pub fn i32(&mut self) -> Result<i32, JuteError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    #[inline]
    pub fn i64(&mut self) -> Result<i64, JuteError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// A buffer; `None` is null.
    #[inline]
    pub fn buffer(&mut self) -> Result<Option<&'a [u8]>, JuteError> {
        let offset = self.offset;
        match self.i32()? {
            -1 => Ok(None),
            length if length < 0 => Err(JuteError::Length { offset, length }),
            length => Ok(Some(self.take(length as usize)?)),
        }
    }

    /// A string; `None` is null. Borrowed unless a malformed sequence had to be replaced.
    #[inline]
    pub fn string(&mut self) -> Result<Option<Cow<'a, str>>, JuteError> {
        Ok(self.buffer()?.map(decode_text))
    }

    /// The count of a vector; `None` is null, other negative counts are empty vectors.
    ///
    /// The caller reads that many elements and must not allocate by the count.
    pub fn count(&mut self) -> Result<Option<usize>, JuteError> {
        Ok(match self.i32()? {
            -1 => None,
            count if count < 0 => Some(0),
            count => Some(count as usize),
        })
    }
}

/// UTF-8 as Java reads it: a malformed sequence becomes one U+FFFD, and an encoded surrogate counts as one sequence.
/// Source: JDK `UTF_8.Decoder`.
#[inline]
fn decode_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(replace_malformed(bytes)),
    }
}

#[cold]
fn replace_malformed(mut bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 8);
    while !bytes.is_empty() {
        let (valid, malformed) = match std::str::from_utf8(bytes) {
            Ok(rest) => (rest.len(), 0),
            Err(error) => {
                let at = error.valid_up_to();
                let is_surrogate = matches!(&bytes[at..], [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..]);
                let length = if is_surrogate { 3 } else { error.error_len().unwrap_or(bytes.len() - at) };
                (at, length)
            }
        };
        text.push_str(&String::from_utf8_lossy(&bytes[..valid]));
        if malformed > 0 {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        bytes = &bytes[valid + malformed..];
    }
    text
}

#[inline]
pub fn put_u8(out: &mut Vec<u8>, value: u8) {
    out.push(value);
}

#[inline]
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

#[inline]
pub fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

#[inline]
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Panics if the buffer is longer than an `i32` can say.
#[inline]
pub fn put_buffer(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => put_i32(out, -1),
        Some(bytes) => {
            put_i32(out, i32::try_from(bytes.len()).expect("a buffer is shorter than 2 GiB"));
            out.extend_from_slice(bytes);
        }
    }
}

#[inline]
pub fn put_string(out: &mut Vec<u8>, value: &str) {
    put_buffer(out, Some(value.as_bytes()));
}

/// A vector of strings.
pub fn put_strings<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = &'a str>) {
    put_i32(out, i32::try_from(values.len()).expect("a vector is shorter than 2^31"));
    for value in values {
        put_string(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_empty_differ() {
        let mut out = Vec::new();
        put_buffer(&mut out, None);
        put_buffer(&mut out, Some(b""));
        let mut reader = Reader::new(&out);
        assert_eq!(reader.buffer(), Ok(None));
        assert_eq!(reader.buffer(), Ok(Some(&b""[..])));
        assert!(reader.is_empty());
    }

    #[test]
    fn negative_length_is_refused_and_negative_count_is_empty() {
        let minus_two = (-2i32).to_be_bytes();
        assert_eq!(Reader::new(&minus_two).buffer(), Err(JuteError::Length { offset: 0, length: -2 }));
        assert_eq!(Reader::new(&minus_two).count(), Ok(Some(0)));
        assert_eq!(Reader::new(&(-1i32).to_be_bytes()).count(), Ok(None));
    }

    #[test]
    fn length_past_the_end_is_truncated() {
        let bytes = [0, 0, 0, 9, 1, 2];
        assert_eq!(Reader::new(&bytes).buffer(), Err(JuteError::Truncated { offset: 4, wanted: 9, left: 2 }));
    }

    #[test]
    fn malformed_text_becomes_replacement_characters() {
        let bytes = [0, 0, 0, 2, b'/', 0xff];
        assert_eq!(Reader::new(&bytes).string(), Ok(Some("/\u{fffd}".into())));
        assert_eq!(decode_text(b"a\xed\xa0\x80b\xe2\x82"), "a\u{fffd}b\u{fffd}");
    }
}
