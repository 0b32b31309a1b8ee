//! What is encrypted under a password in key stores and PEM files: PBES2, and the older schemes of PKCS12.
//!
//! Source: RFC 8018 (PBES2, PBKDF2), RFC 7292 appendices B and C (PKCS12).

use std::num::NonZeroU32;

use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockDecryptMut, KeyIvInit};
use ring::{hmac, pbkdf2};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};

use super::der::{self, Reader, SEQUENCE};
use super::store::Problem;

/// Rounds of a key derivation, as Java bounds them.
const ROUNDS_MAX: u32 = 5_000_000;

// 1.2.840.113549, and what is below it.
const RSADSI: [u8; 6] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d];
const PBKDF2: [u8; 3] = [1, 5, 12];
const PBES2: [u8; 3] = [1, 5, 13];
const PKCS12_PBE: [u8; 3] = [1, 12, 1];
const DIGEST: [u8; 1] = [2];
const DES_EDE3_CBC: [u8; 2] = [3, 7];
// 2.16.840.1.101.3.4, and its ciphers and hashes.
const NIST: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01];
const NIST_HASH: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
const SHA1: [u8; 5] = [0x2b, 0x0e, 0x03, 0x02, 0x1a];

/// Decrypts an EncryptedPrivateKeyInfo into a PrivateKeyInfo.
pub fn decrypt_key(encrypted: &[u8], password: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("an encrypted key");
    let mut inside = Reader::new(encrypted).enter(SEQUENCE).ok_or_else(malformed)?;
    let algorithm = inside.enter(SEQUENCE).ok_or_else(malformed)?;
    let ciphertext = inside.take(der::OCTET_STRING).ok_or_else(malformed)?;
    decrypt(algorithm, ciphertext, password)
}

/// Decrypts by an AlgorithmIdentifier, of which this is the inside.
pub fn decrypt(mut algorithm: Reader<'_>, ciphertext: &[u8], password: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("the parameters of an encryption");
    let oid = algorithm.oid().ok_or_else(malformed)?;
    let parameters = algorithm.enter(SEQUENCE).ok_or_else(malformed)?;
    match oid.strip_prefix(&RSADSI) {
        Some(below) if below == PBES2 => pbes2(parameters, ciphertext, password),
        Some([a, b, c, scheme]) if [*a, *b, *c] == PKCS12_PBE => {
            pkcs12_pbe(*scheme, parameters, ciphertext, password)
        }
        _ => Err(unknown("encryption", oid)),
    }
}

fn unknown(what: &str, oid: &[u8]) -> Problem {
    let oid = der::dotted(oid).unwrap_or_else(|| "malformed".into());
    Problem::Unsupported(format!("{what} {oid}"))
}

fn pbes2(mut parameters: Reader<'_>, ciphertext: &[u8], password: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("the parameters of PBES2");
    let mut derivation = parameters.enter(SEQUENCE).ok_or_else(malformed)?;
    let mut cipher = parameters.enter(SEQUENCE).ok_or_else(malformed)?;
    let kdf = derivation.oid().ok_or_else(malformed)?;
    if kdf.strip_prefix(&RSADSI) != Some(&PBKDF2) {
        return Err(unknown("key derivation", kdf));
    }
    let mut derivation = derivation.enter(SEQUENCE).ok_or_else(malformed)?;
    let salt = derivation.take(der::OCTET_STRING).ok_or_else(malformed)?;
    let rounds = rounds(derivation.number().ok_or_else(malformed)?)?;
    let _key_bytes = derivation.optional(der::INTEGER);
    let prf = match derivation.enter(SEQUENCE) {
        None => pbkdf2::PBKDF2_HMAC_SHA1,
        Some(mut prf) => {
            let oid = prf.oid().ok_or_else(malformed)?;
            match oid.strip_prefix(&RSADSI).and_then(|below| below.strip_prefix(&DIGEST)) {
                Some([7]) => pbkdf2::PBKDF2_HMAC_SHA1,
                Some([9]) => pbkdf2::PBKDF2_HMAC_SHA256,
                Some([10]) => pbkdf2::PBKDF2_HMAC_SHA384,
                Some([11]) => pbkdf2::PBKDF2_HMAC_SHA512,
                _ => return Err(unknown("hash", oid)),
            }
        }
    };
    let key = |bytes: usize| {
        let mut key = vec![0; bytes];
        pbkdf2::derive(prf, rounds, salt, password.as_bytes(), &mut key);
        key
    };
    let oid = cipher.oid().ok_or_else(malformed)?;
    let iv = cipher.take(der::OCTET_STRING).ok_or_else(malformed)?;
    match (oid.strip_prefix(&NIST), oid.strip_prefix(&RSADSI)) {
        (Some([2]), _) => cbc_decrypt::<aes::Aes128>(&key(16), iv, ciphertext),
        (Some([22]), _) => cbc_decrypt::<aes::Aes192>(&key(24), iv, ciphertext),
        (Some([42]), _) => cbc_decrypt::<aes::Aes256>(&key(32), iv, ciphertext),
        (_, Some(below)) if below == DES_EDE3_CBC => cbc_decrypt::<des::TdesEde3>(&key(24), iv, ciphertext),
        _ => Err(unknown("cipher", oid)),
    }
}

/// The schemes of SHA-1 with triple DES or RC2.
fn pkcs12_pbe(
    scheme: u8,
    mut parameters: Reader<'_>,
    ciphertext: &[u8],
    password: &str,
) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("the parameters of an encryption");
    let salt = parameters.take(der::OCTET_STRING).ok_or_else(malformed)?;
    let rounds = rounds(parameters.number().ok_or_else(malformed)?)?.get();
    let password = bmp(password);
    let derive = |purpose, bytes| derive::<Sha1>(&password, salt, rounds, purpose, bytes, 64);
    let key = |bytes| derive(PURPOSE_KEY, bytes);
    let iv = derive(PURPOSE_IV, 8);
    match scheme {
        3 => cbc_decrypt::<des::TdesEde3>(&key(24), &iv, ciphertext),
        4 => cbc_decrypt::<des::TdesEde2>(&key(16), &iv, ciphertext),
        5 => cbc_decrypt::<rc2::Rc2>(&key(16), &iv, ciphertext),
        6 => {
            // A key of 40 bits, which the cipher's own constructor takes for its length in bytes.
            let cipher = rc2::Rc2::new_with_eff_key_len(&key(5), 40);
            let plain = cbc::cipher::InnerIvInit::inner_iv_slice_init(cipher, &iv)
                .map_err(|_| malformed())
                .and_then(|cbc: Decryptor<rc2::Rc2>| {
                cbc.decrypt_padded_vec_mut::<Pkcs7>(ciphertext).map_err(|_| Problem::Password)
            })?;
            Ok(plain)
        }
        _ => Err(Problem::Unsupported(format!("encryption 1.2.840.113549.1.12.1.{scheme}"))),
    }
}

fn rounds(rounds: u32) -> Result<NonZeroU32, Problem> {
    NonZeroU32::new(rounds)
        .filter(|rounds| rounds.get() <= ROUNDS_MAX)
        .ok_or_else(|| Problem::Unsupported(format!("{rounds} rounds of key derivation")))
}

/// A wrong password shows as wrong padding, if not further inside.
fn cbc_decrypt<C>(key: &[u8], iv: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, Problem>
where
    C: cbc::cipher::BlockCipher + cbc::cipher::BlockDecryptMut + cbc::cipher::KeyInit,
{
    let cbc: Decryptor<C> = Decryptor::new_from_slices(key, iv)
        .map_err(|_| Problem::Malformed("the parameters of an encryption"))?;
    cbc.decrypt_padded_vec_mut::<Pkcs7>(ciphertext).map_err(|_| Problem::Password)
}

/// Checks the MAC over the contents of a PKCS12 file, by the inside of its MacData.
pub fn check_mac(mut mac: Reader<'_>, contents: &[u8], password: &str) -> Result<(), Problem> {
    let malformed = || Problem::Malformed("the MAC");
    let mut digest_info = mac.enter(SEQUENCE).ok_or_else(malformed)?;
    let salt = mac.take(der::OCTET_STRING).ok_or_else(malformed)?;
    let rounds = match mac.is_empty() {
        true => 1,
        false => rounds(mac.number().ok_or_else(malformed)?)?.get(),
    };
    let oid = digest_info.enter(SEQUENCE).and_then(|mut algorithm| algorithm.oid()).ok_or_else(malformed)?;
    let expected = digest_info.take(der::OCTET_STRING).ok_or_else(malformed)?;
    let password = bmp(password);
    let (algorithm, key) = match oid.strip_prefix(&NIST_HASH) {
        None if oid == SHA1 => {
            let key = derive::<Sha1>(&password, salt, rounds, PURPOSE_MAC, 20, 64);
            (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key)
        }
        Some([1]) => (hmac::HMAC_SHA256, derive::<Sha256>(&password, salt, rounds, PURPOSE_MAC, 32, 64)),
        Some([2]) => (hmac::HMAC_SHA384, derive::<Sha384>(&password, salt, rounds, PURPOSE_MAC, 48, 128)),
        Some([3]) => (hmac::HMAC_SHA512, derive::<Sha512>(&password, salt, rounds, PURPOSE_MAC, 64, 128)),
        _ => return Err(unknown("MAC", oid)),
    };
    hmac::verify(&hmac::Key::new(algorithm, &key), contents, expected).map_err(|_| Problem::Password)
}

const PURPOSE_KEY: u8 = 1;
const PURPOSE_IV: u8 = 2;
const PURPOSE_MAC: u8 = 3;

/// A password as PKCS12 hashes it: two bytes a character and two zeros.
fn bmp(password: &str) -> Vec<u8> {
    password.encode_utf16().chain([0]).flat_map(u16::to_be_bytes).collect()
}

/// Key derivation of PKCS12. `block` is the hash's. Source: RFC 7292 appendix B.2.
fn derive<H: Digest>(
    password: &[u8],
    salt: &[u8],
    rounds: u32,
    purpose: u8,
    bytes: usize,
    block: usize,
) -> Vec<u8> {
    let fill = |of: &[u8]| -> Vec<u8> {
        let len = of.len().next_multiple_of(block);
        of.iter().copied().cycle().take(if of.is_empty() { 0 } else { len }).collect()
    };
    let mut input = [fill(salt), fill(password)].concat();
    let mut out = Vec::new();
    while out.len() < bytes {
        let mut hash = H::new().chain_update(vec![purpose; block]).chain_update(&input).finalize();
        for _ in 1..rounds {
            hash = H::digest(&hash);
        }
        out.extend_from_slice(&hash);
        // Each block of the input grows by the hash, repeated, and one.
        let addend: Vec<u8> = hash.iter().copied().cycle().take(block).collect();
        for chunk in input.chunks_mut(block) {
            let mut carry = 1u16;
            for (byte, add) in chunk.iter_mut().zip(&addend).rev() {
                carry += u16::from(*byte) + u16::from(*add);
                *byte = carry as u8;
                carry >>= 8;
            }
        }
    }
    out.truncate(bytes);
    out
}
