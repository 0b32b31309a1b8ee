//! Access control lists as records.
//!
//! A list is kept in its encoded form, `vector<ACL{int perms, Id{ustring scheme, ustring id}}>`: that is what log, snapshot
//! and reply hold, and what a check walks.

use std::borrow::Cow;

use crate::jute::{JuteError, Reader, put_buffer, put_i32};

/// Permission bits; neither masked nor validated, as clients may store others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Perms(pub i32);

impl Perms {
    pub const READ: Perms = Perms(1);
    pub const WRITE: Perms = Perms(2);
    pub const CREATE: Perms = Perms(4);
    pub const DELETE: Perms = Perms(8);
    pub const ADMIN: Perms = Perms(16);
    pub const ALL: Perms = Perms(31);

    pub fn meets(self, wanted: Perms) -> bool {
        self.0 & wanted.0 != 0
    }
}

impl std::ops::BitOr for Perms {
    type Output = Perms;

    fn bitor(self, other: Perms) -> Perms {
        Perms(self.0 | other.0)
    }
}

/// One entry as read from bytes. Strings may be null on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclEntry<'a> {
    pub perms: Perms,
    pub scheme: Option<Cow<'a, str>>,
    pub id: Option<Cow<'a, str>>,
}

impl<'a> AclEntry<'a> {
    pub fn decode(reader: &mut Reader<'a>) -> Result<AclEntry<'a>, JuteError> {
        Ok(AclEntry { perms: Perms(reader.i32()?), scheme: reader.string()?, id: reader.string()? })
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        put_i32(out, self.perms.0);
        put_buffer(out, self.scheme.as_deref().map(str::as_bytes));
        put_buffer(out, self.id.as_deref().map(str::as_bytes));
    }

    pub fn into_owned(self) -> AclEntry<'static> {
        AclEntry {
            perms: self.perms,
            scheme: self.scheme.map(|s| Cow::Owned(s.into_owned())),
            id: self.id.map(|s| Cow::Owned(s.into_owned())),
        }
    }
}

/// An encoded list, known to decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acl<'a> {
    bytes: &'a [u8],
}

impl<'a> Acl<'a> {
    /// Takes a list from `reader` and checks that it decodes. `None` is a null vector.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Option<Acl<'a>>, JuteError> {
        let rest = reader.rest();
        let from = reader.offset();
        let Some(count) = reader.count()? else { return Ok(None) };
        for _ in 0..count {
            AclEntry::decode(reader)?;
        }
        Ok(Some(Acl { bytes: &rest[..reader.offset() - from] }))
    }

    /// For bytes that [`Acl::decode`] once accepted. Panics otherwise when they are walked.
    pub fn from_checked(bytes: &'a [u8]) -> Acl<'a> {
        Acl { bytes }
    }

    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    pub fn entries(self) -> impl Iterator<Item = AclEntry<'a>> {
        let mut reader = Reader::new(self.bytes);
        let count = reader.count().expect("a checked list").unwrap_or(0);
        (0..count).map(move |_| AclEntry::decode(&mut reader).expect("a checked list"))
    }

    pub fn is_empty(self) -> bool {
        self.entries().next().is_none()
    }
}

/// Encodes a list of entries.
pub fn encode_list(entries: &[AclEntry<'_>], out: &mut Vec<u8>) {
    put_i32(out, entries.len() as i32);
    for entry in entries {
        entry.encode(out);
    }
}

/// `world:anyone` with every permission, the list that needs no check: encoded.
pub const OPEN_UNSAFE: &[u8] = b"\0\0\0\x01\0\0\0\x1f\0\0\0\x05world\0\0\0\x06anyone";
/// `world:anyone` with READ: what `/zookeeper/config` carries.
pub const READ_UNSAFE: &[u8] = b"\0\0\0\x01\0\0\0\x01\0\0\0\x05world\0\0\0\x06anyone";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_decode_to_what_they_say() {
        for (bytes, perms) in [(OPEN_UNSAFE, Perms::ALL), (READ_UNSAFE, Perms::READ)] {
            let mut reader = Reader::new(bytes);
            let list = Acl::decode(&mut reader).unwrap().unwrap();
            assert!(reader.is_empty());
            let entries: Vec<_> = list.entries().collect();
            let entry = AclEntry { perms, scheme: Some("world".into()), id: Some("anyone".into()) };
            assert_eq!(entries, [entry]);
            let mut out = Vec::new();
            encode_list(&entries, &mut out);
            assert_eq!(out, bytes);
        }
    }
}
