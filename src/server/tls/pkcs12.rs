//! PKCS12 files, as keytool and OpenSSL write them: under one password, in DER.
//!
//! Source: RFC 7292; the attribute of trusted certificates is OpenJDK's `PKCS12KeyStore`.

use super::certificate::Certificate;
use super::der::{self, Reader, SEQUENCE};
use super::pbe;
use super::store::{Contents, KeyEntry, Problem, TrustedEntry};

/// 1.2.840.113549.1.7.1 and .6: contents plain and encrypted.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 6];
/// 1.2.840.113549.1.12.10.1: what a bag holds.
const BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1];
/// 1.2.840.113549.1.9.22.1: an X.509 certificate.
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
/// 1.2.840.113549.1.9.20 and .21.
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 21];
/// 2.16.840.1.113894.746875.1.1: Java keeps this certificate as one to be trusted.
const TRUSTED_KEY_USAGE: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];
/// Certificates behind one key.
const CHAIN_MAX: usize = 16;

struct KeyBag {
    key: Vec<u8>,
    names: Names,
}

struct CertificateBag {
    certificate: Vec<u8>,
    names: Names,
    /// Belongs to a key's chain.
    chained: bool,
}

#[derive(Default)]
struct Names {
    alias: String,
    key_id: Option<Vec<u8>>,
    trusted: bool,
}

/// Reads a whole file.
pub fn parse(file: &[u8], password: &str) -> Result<Contents, Problem> {
    let malformed = || Problem::Malformed("a PKCS12 store");
    let mut outer = Reader::new(file).enter(SEQUENCE).ok_or_else(malformed)?;
    if outer.number() != Some(3) {
        return Err(malformed());
    }
    let mut safe = outer.enter(SEQUENCE).ok_or_else(malformed)?;
    if safe.oid() != Some(DATA) {
        return Err(Problem::Unsupported("a PKCS12 store that is not kept together by a password".into()));
    }
    let contents = octets(&mut safe).ok_or_else(malformed)?;
    if let Some(mac) = outer.enter(SEQUENCE) {
        pbe::check_mac(mac, contents, password)?;
    }
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    let mut parts = Reader::new(contents).enter(SEQUENCE).ok_or_else(malformed)?;
    while !parts.is_empty() {
        let mut part = parts.enter(SEQUENCE).ok_or_else(malformed)?;
        let kind = part.oid().ok_or_else(malformed)?;
        if kind == DATA {
            let bags = octets(&mut part).ok_or_else(malformed)?;
            take_bags(bags, password, &mut keys, &mut certificates)?;
        } else if kind == ENCRYPTED_DATA {
            let bags = decrypt(part, password)?;
            take_bags(&bags, password, &mut keys, &mut certificates)?;
        } else {
            return Err(Problem::Unsupported("a PKCS12 store encrypted to a public key".into()));
        }
    }
    Ok(entries(keys, certificates))
}

/// `[0]` around an octet string.
fn octets<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    reader.enter(der::context(0))?.take(der::OCTET_STRING)
}

fn decrypt(mut part: Reader<'_>, password: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::Malformed("encrypted contents of a PKCS12 store");
    let mut data =
        part.enter(der::context(0)).and_then(|mut inside| inside.enter(SEQUENCE)).ok_or_else(malformed)?;
    let _version = data.number();
    let mut info = data.enter(SEQUENCE).ok_or_else(malformed)?;
    let _kind = info.oid().ok_or_else(malformed)?;
    let algorithm = info.enter(SEQUENCE).ok_or_else(malformed)?;
    // An octet string under the tag [0]: whole, or in pieces.
    let text = info.any().ok_or_else(malformed)?;
    let mut pieces = Vec::new();
    match text.tag {
        0x80 => pieces.extend_from_slice(text.content),
        0xa0 => {
            let mut reader = Reader::new(text.content);
            while !reader.is_empty() {
                pieces.extend_from_slice(reader.take(der::OCTET_STRING).ok_or_else(malformed)?);
            }
        }
        _ => return Err(malformed()),
    }
    pbe::decrypt(algorithm, &pieces, password)
}

fn take_bags(
    bags: &[u8],
    password: &str,
    keys: &mut Vec<KeyBag>,
    certificates: &mut Vec<CertificateBag>,
) -> Result<(), Problem> {
    let malformed = || Problem::Malformed("the bags of a PKCS12 store");
    let mut bags = Reader::new(bags).enter(SEQUENCE).ok_or_else(malformed)?;
    while !bags.is_empty() {
        let mut bag = bags.enter(SEQUENCE).ok_or_else(malformed)?;
        let kind = bag.oid().ok_or_else(malformed)?;
        let mut value = bag.enter(der::context(0)).ok_or_else(malformed)?;
        let names = bag.enter(der::SET).map(names).unwrap_or_default();
        match kind.strip_prefix(BAG) {
            Some([1]) => {
                let key = value.optional(SEQUENCE).ok_or_else(malformed)?.whole.to_vec();
                keys.push(KeyBag { key, names });
            }
            Some([2]) => {
                let encrypted = value.optional(SEQUENCE).ok_or_else(malformed)?.whole;
                keys.push(KeyBag { key: pbe::decrypt_key(encrypted, password)?, names });
            }
            Some([3]) => {
                let mut inside = value.enter(SEQUENCE).ok_or_else(malformed)?;
                if inside.oid() == Some(X509) {
                    let certificate = octets(&mut inside).ok_or_else(malformed)?.to_vec();
                    certificates.push(CertificateBag { certificate, names, chained: false });
                }
            }
            // Revocation lists, secrets, bags in bags: nothing for TLS.
            _ => {}
        }
    }
    Ok(())
}

/// What the attributes of a bag say. What is malformed in them says nothing.
fn names(mut attributes: Reader<'_>) -> Names {
    let mut names = Names::default();
    while let Some(mut attribute) = attributes.enter(SEQUENCE) {
        let (Some(kind), Some(mut values)) = (attribute.oid(), attribute.enter(der::SET)) else { continue };
        if kind == TRUSTED_KEY_USAGE {
            names.trusted = true;
        } else if kind == LOCAL_KEY_ID {
            names.key_id = values.take(der::OCTET_STRING).map(<[u8]>::to_vec);
        } else if kind == FRIENDLY_NAME
            && let Some(text) = values.any()
        {
            let units: Vec<u16> =
                text.content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            names.alias = String::from_utf16_lossy(&units);
        }
    }
    names
}

/// Puts certificates to their keys: the one with the key's id, then each one's issuer; the rest is trusted.
fn entries(keys: Vec<KeyBag>, mut certificates: Vec<CertificateBag>) -> Contents {
    let has_keys = !keys.is_empty();
    let mut contents = Contents::default();
    for bag in keys {
        let own = certificates
            .iter()
            .position(|other| bag.names.key_id.is_some() && other.names.key_id == bag.names.key_id)
            // A lone certificate beside a lone key belongs to it, whatever it is called.
            .or_else(|| certificates.iter().position(|other| !other.names.trusted && !other.chained));
        let mut chain: Vec<usize> = own.into_iter().collect();
        while let Some(&last) = chain.last()
            && chain.len() < CHAIN_MAX
            && let Some(next) = issuer_of(&certificates, last)
            && !chain.contains(&next)
        {
            chain.push(next);
        }
        for &index in &chain {
            certificates[index].chained = true;
        }
        let chain = chain.into_iter().map(|index| certificates[index].certificate.clone()).collect();
        contents.keys.push(KeyEntry { alias: bag.names.alias, key: bag.key, chain });
    }
    for bag in certificates {
        // Beside keys Java trusts only what is marked so; without keys what is there can only be meant to be trusted.
        if bag.names.trusted || !has_keys {
            contents.trusted.push(TrustedEntry { alias: bag.names.alias, certificate: bag.certificate });
        }
    }
    contents
}

fn issuer_of(certificates: &[CertificateBag], index: usize) -> Option<usize> {
    let issuer = Certificate::parse(&certificates[index].certificate)?.issuer_der;
    certificates.iter().position(|other| {
        Certificate::parse(&other.certificate).is_some_and(|parsed| parsed.subject_der == issuer)
    })
}
