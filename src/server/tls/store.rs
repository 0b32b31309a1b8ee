//! Key stores and trust stores: what is in the file a key names, in whichever of the forms it has.

use std::fmt;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{jks, pbe, pkcs12};
use crate::config::Origin;
use crate::config::tls::{Password, Store, StoreKind};

/// Bytes of a store or of a file with a password: far above any real one.
pub const STORE_BYTES_MAX: u64 = 16 << 20;

/// What a store holds.
#[derive(Default)]
pub struct Contents {
    pub keys: Vec<KeyEntry>,
    pub trusted: Vec<TrustedEntry>,
}

/// A private key and its certificates, its own first.
pub struct KeyEntry {
    /// Empty where the form has no names.
    pub alias: String,
    /// In DER: PKCS#8, or one of the forms before it.
    pub key: Vec<u8>,
    pub chain: Vec<Vec<u8>>,
}

/// A certificate to be trusted.
#[derive(Debug)]
pub struct TrustedEntry {
    pub alias: String,
    pub certificate: Vec<u8>,
}

/// Why a store cannot be used. Told once, before anything is served; exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {key}={location}: {problem}")]
pub struct StoreError {
    pub origin: Origin,
    pub key: String,
    pub location: String,
    pub problem: String,
}

impl StoreError {
    pub fn new(store: &Store, problem: impl fmt::Display) -> StoreError {
        StoreError {
            origin: store.origin.clone(),
            key: store.key.clone(),
            location: store.location.display().to_string(),
            problem: problem.to_string(),
        }
    }
}

/// What may be wrong inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("{0} was expected, and what is there is malformed")]
    Malformed(&'static str),
    #[error("the password does not fit, or the file is damaged")]
    Password,
    #[error("{0} cannot be read here; expected PEM, PKCS12 or JKS as keytool and openssl write them")]
    Unsupported(String),
}

/// Reads the store a key names.
pub fn read(store: &Store) -> Result<Contents, StoreError> {
    let wrong = |problem: &dyn fmt::Display| StoreError::new(store, problem);
    let file = read_file(&store.location).map_err(|problem| wrong(&problem))?;
    let password = password(store)?;
    let contents = match (form(&file), store.kind) {
        (Some(Form::Pem), None | Some(StoreKind::Pem)) => pem(&file, &password),
        (Some(Form::Jks), None | Some(StoreKind::JksOrPkcs12)) => jks::parse(&file, &password),
        (Some(Form::Pkcs12), None | Some(StoreKind::JksOrPkcs12)) => pkcs12::parse(&file, &password),
        (Some(Form::Jceks), _) => return Err(wrong(&Problem::Unsupported("a JCEKS store".into()))),
        (Some(Form::Jks | Form::Pkcs12), Some(StoreKind::Pem)) => {
            return Err(wrong(&"its type is given as PEM, and it is JKS or PKCS12"));
        }
        (Some(Form::Pem), Some(StoreKind::JksOrPkcs12)) => {
            return Err(wrong(&"its type is given as JKS or PKCS12, and it is PEM"));
        }
        (None, _) => return Err(wrong(&"expected a key store: PEM, PKCS12 or JKS")),
    };
    contents.map_err(|problem| wrong(&problem))
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    file.take(STORE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > STORE_BYTES_MAX {
        return Err(format!("more than {STORE_BYTES_MAX} bytes, too many for a key store"));
    }
    Ok(bytes)
}

fn password(store: &Store) -> Result<String, StoreError> {
    match &store.password {
        Password::Given(secret) => Ok(secret.0.clone()),
        Password::File(path) => {
            let of_file = |problem: String| StoreError {
                key: store.key.replace(".location", ".passwordPath"),
                location: path.display().to_string(),
                ..StoreError::new(store, problem)
            };
            let bytes = read_file(path).map_err(of_file)?;
            let mut text =
                String::from_utf8(bytes).map_err(|_| of_file("expected a password in UTF-8".into()))?;
            if text.ends_with('\n') {
                text.pop();
            }
            Ok(text)
        }
    }
}

enum Form {
    Pem,
    Jks,
    Jceks,
    Pkcs12,
}

fn form(file: &[u8]) -> Option<Form> {
    const MARK: &[u8] = b"-----BEGIN ";
    match file {
        _ if file.starts_with(&jks::MAGIC) => Some(Form::Jks),
        _ if file.starts_with(&jks::MAGIC_JCEKS) => Some(Form::Jceks),
        // A sequence of more than 127 bytes.
        [0x30, 0x80..=0x84, ..] => Some(Form::Pkcs12),
        _ if file.windows(MARK.len()).any(|window| window == MARK) => Some(Form::Pem),
        _ => None,
    }
}

/// Keys and certificates between their marks; what stands outside is passed over. A key's certificates are all there
/// are; without a key all are trusted. Source: ZooKeeper `PemReader`.
fn pem(file: &[u8], password: &str) -> Result<Contents, Problem> {
    let text = String::from_utf8_lossy(file);
    let (mut keys, mut certificates) = (Vec::new(), Vec::new());
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) else {
            continue;
        };
        let end = format!("-----END {label}-----");
        let mut encoded = String::new();
        let mut ended = false;
        for line in lines.by_ref() {
            if line == end {
                ended = true;
                break;
            }
            if line.starts_with("Proc-Type:") {
                let what =
                    format!("a key encrypted as {label} (openssl pkcs8 -topk8 makes one that can), which");
                return Err(Problem::Unsupported(what));
            }
            encoded.push_str(line);
        }
        if !ended {
            return Err(Problem::Malformed("the end of a PEM block"));
        }
        let der = || STANDARD.decode(&encoded).map_err(|_| Problem::Malformed("base64 in a PEM block"));
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => certificates.push(der()?),
            "ENCRYPTED PRIVATE KEY" => keys.push(pbe::decrypt_key(&der()?, password)?),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => keys.push(der()?),
            // Parameters of a curve, revocation lists.
            _ => {}
        }
    }
    if keys.is_empty() {
        let trusted = certificates
            .into_iter()
            .map(|certificate| TrustedEntry { alias: String::new(), certificate })
            .collect();
        return Ok(Contents { keys: Vec::new(), trusted });
    }
    let keys =
        keys.into_iter().map(|key| KeyEntry { alias: String::new(), key, chain: certificates.clone() });
    Ok(Contents { keys: keys.collect(), trusted: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn golden(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tls").join(name)
    }

    fn store(name: &str, kind: Option<StoreKind>, password: &str) -> Store {
        Store {
            key: "ssl.keyStore.location".into(),
            origin: Origin::Line { file: "zoo.cfg".into(), line: 3 },
            location: golden(name),
            kind,
            password: Password::Given(Secret(password.into())),
        }
    }

    fn problem(name: &str, kind: Option<StoreKind>, password: &str) -> String {
        let error = read(&store(name, kind, password)).err().expect("a store that cannot be used");
        let text = error.to_string();
        let before = format!("zoo.cfg:3: ssl.keyStore.location={}: ", golden(name).display());
        text.strip_prefix(&before).unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    /// The same key and chain come out of whatever wrote them: keytool and openssl, today's ciphers and older ones.
    #[test]
    fn key_stores_of_every_form_hold_the_same() {
        let plain = read(&store("server.pem", None, "")).unwrap();
        let (key, chain) = (&plain.keys[0].key, &plain.keys[0].chain);
        assert_eq!(chain.len(), 2);
        for name in [
            "server.jks",
            "server-keytool.p12",
            "server-openssl.p12",
            "server-3des.p12",
            "server-rc2.p12",
            "server-aes128-sha512.p12",
            "server-encrypted.pem",
            "server-encrypted-3des.pem",
        ] {
            let contents = read(&store(name, None, "secret")).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(contents.keys.len(), 1, "{name}");
            assert!(contents.keys[0].key == *key, "{name}: another key");
            assert_eq!(contents.keys[0].chain, *chain, "{name}");
            assert_eq!(contents.trusted.len(), 0, "{name}");
            assert!(read(&store(name, None, "wrong")).is_err(), "{name}");
        }
        assert_eq!(read(&store("server.jks", None, "secret")).unwrap().keys[0].alias, "server");
        assert_eq!(read(&store("server-keytool.p12", None, "secret")).unwrap().keys[0].alias, "server");
    }

    #[test]
    fn trust_stores_of_every_form_hold_the_same() {
        let plain = read(&store("ca.pem", Some(StoreKind::Pem), "")).unwrap();
        assert_eq!((plain.keys.len(), plain.trusted.len()), (0, 1));
        for name in ["trust.jks", "trust-keytool.p12", "trust-openssl.p12"] {
            let contents = read(&store(name, Some(StoreKind::JksOrPkcs12), "secret")).unwrap();
            assert_eq!((contents.keys.len(), contents.trusted.len()), (0, 1), "{name}");
            assert_eq!(contents.trusted[0].certificate, plain.trusted[0].certificate, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_store_is_named() {
        let pkcs = Some(StoreKind::JksOrPkcs12);
        for (name, kind, password, expected) in [
            ("none.jks", None, "", "cannot be read: No such file or directory (os error 2)"),
            ("server.jks", None, "wrong", "the password does not fit, or the file is damaged"),
            ("server-keytool.p12", pkcs, "", "the password does not fit, or the file is damaged"),
            ("server.pem", pkcs, "", "its type is given as JKS or PKCS12, and it is PEM"),
            ("server.jks", Some(StoreKind::Pem), "", "its type is given as PEM, and it is JKS or PKCS12"),
            ("make.sh", None, "", "expected a key store: PEM, PKCS12 or JKS"),
        ] {
            assert_eq!(problem(name, kind, password), expected);
        }
        let mut by_file = store("server.jks", None, "");
        by_file.password = Password::File(golden("none"));
        let error = read(&by_file).err().unwrap().to_string();
        assert!(
            error.contains(": ssl.keyStore.passwordPath=") && error.contains("cannot be read"),
            "{error}"
        );
        by_file.password = Password::File(golden("password"));
        assert_eq!(read(&by_file).unwrap().keys.len(), 1);
    }

    /// Damage is an error or harmless, and never a panic: every byte of small stores turned, every length cut.
    #[test]
    fn damaged_stores_are_refused() {
        for (name, parse) in [
            ("trust.jks", jks::parse as fn(&[u8], &str) -> Result<Contents, Problem>),
            ("trust-openssl.p12", pkcs12::parse),
            ("ca.pem", pem),
        ] {
            let whole = std::fs::read(golden(name)).unwrap();
            // Deriving a key takes a while, so not every place is tried.
            let step = if name.ends_with(".p12") { 23 } else { 1 };
            for at in (0..whole.len()).step_by(step) {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x55;
                let _ = parse(&damaged, "secret");
                let _ = parse(&whole[..at], "secret");
            }
        }
    }
}
