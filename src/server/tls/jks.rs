//! JKS, Java's older key store. Big-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic 0xfeedfeed |
//! | 4 | version, 1 or 2 |
//! | 4 | number of entries |
//! | … | entries |
//! | 20 | SHA-1 of password, `Mighty Aphrodite` and every byte before |
//!
//! An entry: kind (4: 1 a key, 2 a certificate), alias (2 bytes of length, text), time (8), then for a key its length
//! (4), itself encrypted, and the number of certificates (4); a certificate is its kind (version 2 only: length and
//! text), length (4) and DER. A password is hashed with two bytes a character.
//! Source: OpenJDK `JavaKeyStore`, `KeyProtector`.

use sha1::{Digest, Sha1};

use super::der::{self, Reader, SEQUENCE};
use super::store::{Contents, KeyEntry, Problem, TrustedEntry};

pub const MAGIC: [u8; 4] = [0xfe, 0xed, 0xfe, 0xed];
/// JCEKS, which keeps secret keys, too.
pub const MAGIC_JCEKS: [u8; 4] = [0xce, 0xce, 0xce, 0xce];
const WHITENER: &[u8] = b"Mighty Aphrodite";
const HASH_BYTES: usize = 20;
/// 1.3.6.1.4.1.42.2.17.1.1, how keys are encrypted here and nowhere else.
const KEY_PROTECTOR: [u8; 10] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01];

/// Reads a whole store; its keys are under the same password.
pub fn parse(file: &[u8], password: &str) -> Result<Contents, Problem> {
    let malformed = || Problem::Malformed("a JKS store");
    let (body, hash) = file.split_last_chunk::<HASH_BYTES>().ok_or_else(malformed)?;
    let password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let expected = Sha1::new().chain_update(&password).chain_update(WHITENER).chain_update(body).finalize();
    if expected[..] != hash[..] {
        return Err(Problem::Password);
    }
    let mut input = Input(body);
    if input.take(4) != Some(&MAGIC) {
        return Err(malformed());
    }
    let version = input.number().filter(|version| matches!(version, 1 | 2)).ok_or_else(malformed)?;
    let count = input.number().ok_or_else(malformed)?;
    let mut contents = Contents::default();
    for _ in 0..count {
        let kind = input.number().ok_or_else(malformed)?;
        let alias = input.text().ok_or_else(malformed)?;
        let _made = input.take(8).ok_or_else(malformed)?;
        match kind {
            1 => {
                let encrypted = input.long().ok_or_else(malformed)?;
                let length = input.number().ok_or_else(malformed)?;
                let mut chain = Vec::new();
                for _ in 0..length {
                    chain.push(input.certificate(version).ok_or_else(malformed)?.to_vec());
                }
                contents.keys.push(KeyEntry { alias, key: decrypt(encrypted, &password)?, chain });
            }
            2 => {
                let certificate = input.certificate(version).ok_or_else(malformed)?.to_vec();
                contents.trusted.push(TrustedEntry { alias, certificate });
            }
            _ => return Err(malformed()),
        }
    }
    Ok(contents)
}

/// A key under a stream of hashes: 20 bytes of salt, the key, and a hash over password and key.
fn decrypt(encrypted: &[u8], password: &[u8]) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("a key in a JKS store");
    let mut inside = Reader::new(encrypted).enter(SEQUENCE).ok_or_else(malformed)?;
    let mut algorithm = inside.enter(SEQUENCE).ok_or_else(malformed)?;
    if algorithm.oid() != Some(&KEY_PROTECTOR) {
        return Err(Problem::Unsupported("a key that is not encrypted as JKS does it".into()));
    }
    let text = inside.take(der::OCTET_STRING).ok_or_else(malformed)?;
    let (salt, rest) = text.split_first_chunk::<HASH_BYTES>().ok_or_else(malformed)?;
    let (ciphertext, check) = rest.split_last_chunk::<HASH_BYTES>().ok_or_else(malformed)?;
    let mut plain = Vec::with_capacity(ciphertext.len());
    let mut stream: [u8; HASH_BYTES] = *salt;
    for chunk in ciphertext.chunks(HASH_BYTES) {
        stream = Sha1::new().chain_update(password).chain_update(stream).finalize().into();
        plain.extend(chunk.iter().zip(stream).map(|(byte, mask)| byte ^ mask));
    }
    let expected = Sha1::new().chain_update(password).chain_update(&plain).finalize();
    if expected[..] == check[..] { Ok(plain) } else { Err(Problem::Password) }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// Bytes behind their length.
    fn long(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(count as usize)
    }

    fn text(&mut self) -> Option<String> {
        let count = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        Some(String::from_utf8_lossy(self.take(usize::from(count))?).into_owned())
    }

    fn certificate(&mut self, version: u32) -> Option<&'a [u8]> {
        if version == 2 {
            self.text().filter(|kind| kind == "X.509")?;
        }
        self.long()
    }
}
