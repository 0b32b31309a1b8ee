//! DER, as far as certificates and key stores need it: a reader that goes from value to value and copies nothing.
//!
//! Lengths are definite and values have their exact tags; anything else is `None`. Bytes come from files and peers, so
//! nothing here panics and nothing recurses.

pub const BOOLEAN: u8 = 0x01;
pub const INTEGER: u8 = 0x02;
pub const OCTET_STRING: u8 = 0x04;
pub const OID: u8 = 0x06;
pub const UTC_TIME: u8 = 0x17;
pub const GENERALIZED_TIME: u8 = 0x18;
pub const SEQUENCE: u8 = 0x30;
pub const SET: u8 = 0x31;

/// `[number]`, constructed, in the context of what it stands in.
pub const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The values of some bytes, one behind the other.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

/// One value.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    pub tag: u8,
    pub content: &'a [u8],
    /// With tag and length.
    pub whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, whatever it is. `None` at the end, too.
    pub fn any(&mut self) -> Option<Value<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        // Numbers of tags above 30 take more bytes; nothing here has such.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Up to 2^32 - 1; 0x80 would be an indefinite length.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (digits.iter().fold(0usize, |len, digit| len << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(len)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Value { tag, content, whole })
    }

    /// The content of the next value, which has this tag.
    pub fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        Some(self.optional(tag)?.content)
    }

    /// As [`Reader::take`], to read on inside.
    pub fn enter(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.take(tag).map(Reader)
    }

    /// The next value if it has this tag; else nothing is read.
    pub fn optional(&mut self, tag: u8) -> Option<Value<'a>> {
        let mut ahead = *self;
        let value = ahead.any().filter(|value| value.tag == tag)?;
        *self = ahead;
        Some(value)
    }

    /// A whole number that fits, and is not negative.
    pub fn number(&mut self) -> Option<u32> {
        let content = self.take(INTEGER)?;
        if content.is_empty() || content.len() > 5 || content[0] & 0x80 != 0 {
            return None;
        }
        let number = content.iter().fold(0u64, |number, digit| number << 8 | u64::from(*digit));
        u32::try_from(number).ok()
    }

    /// An object identifier in its encoding.
    pub fn oid(&mut self) -> Option<&'a [u8]> {
        self.take(OID)
    }
}

/// An object identifier with dots. `None` if it is malformed.
pub fn dotted(oid: &[u8]) -> Option<String> {
    let mut arcs = Vec::new();
    let mut arc = 0u64;
    for byte in oid {
        arc = arc.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            arcs.push(arc);
            arc = 0;
        }
    }
    if oid.last()? & 0x80 != 0 {
        return None;
    }
    // The first two arcs share the first number.
    let first = arcs[0];
    let (one, two) = if first >= 80 { (2, first - 80) } else { (first / 40, first % 40) };
    let rest: String = arcs[1..].iter().map(|arc| format!(".{arc}")).collect();
    Some(format!("{one}.{two}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_each_other() {
        let bytes = [0x30, 0x05, 0x02, 0x01, 0x07, 0x01, 0x00, 0x04, 0x81, 0x01, 0xaa];
        let mut reader = Reader::new(&bytes);
        let mut inside = reader.enter(SEQUENCE).unwrap();
        assert!(inside.optional(OID).is_none());
        assert_eq!(inside.number(), Some(7));
        assert_eq!(inside.take(BOOLEAN), Some(&[][..]));
        assert!(inside.is_empty() && inside.any().is_none());
        let value = reader.any().unwrap();
        assert_eq!((value.tag, value.content, value.whole), (OCTET_STRING, &[0xaa][..], &bytes[7..]));
        assert!(reader.is_empty());
    }

    #[test]
    fn damage_is_none() {
        for bytes in [
            &[0x30][..],
            &[0x30, 0x02, 0x00],
            &[0x30, 0x80, 0x00, 0x00],
            &[0x30, 0x85, 0, 0, 0, 0, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 0x82, 0x01],
            &[0x1f, 0x01, 0x00],
        ] {
            assert!(Reader::new(bytes).any().is_none(), "{bytes:x?}");
        }
        for bytes in [&[0x02, 0x00][..], &[0x02, 0x01, 0x80], &[0x02, 0x05, 1, 0, 0, 0, 0], &[0x04, 0x01, 1]]
        {
            assert!(Reader::new(bytes).number().is_none(), "{bytes:x?}");
        }
    }

    #[test]
    fn object_identifiers_have_dots() {
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1]).unwrap(), "1.2.840.113549.1.9.1");
        assert_eq!(dotted(&[0x55, 0x04, 0x03]).unwrap(), "2.5.4.3");
        assert_eq!(dotted(&[0x88, 0x37]).unwrap(), "2.999");
        assert!(dotted(&[]).is_none() && dotted(&[0x80]).is_none() && dotted(&[0xff; 12]).is_none());
    }
}
