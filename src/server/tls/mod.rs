//! TLS: stores and settings become an [`Acceptor`] and a [`Connector`], and these make [`Session`]s, which do no I/O.
//!
//! rustls with ring speaks TLS 1.2 and 1.3. Sessions are not resumed: each connection shows and verifies its
//! certificates anew, so that what was removed from a trust store is out with the next connection. Renegotiation does
//! not exist.
//!
//! Nothing here knows clients from servers: `ssl.*` and `ssl.quorum.*` differ by the [`Tls`] they are read into.

mod certificate;
mod der;
mod jks;
mod pbe;
mod pkcs12;
pub mod reload;
pub mod session;
mod store;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};

use crate::config::Tls;
use crate::config::tls::{ClientAuth, Store, TlsVersion};

pub use reload::Live;
pub use session::{Event, HANDSHAKE_RECORD, Session};
pub use store::StoreError;
pub use verify::names_address;

use certificate::Certificate;
use verify::Trust;

/// A certificate of ours that ends sooner is warned of.
const ENDS_SOON_S: i64 = 14 * 86_400;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0}")]
    Protocol(#[from] rustls::Error),
    #[error("more than {bytes_max} bytes that make no whole message")]
    TooLong { bytes_max: usize },
    #[error("{0} is neither the name of a host nor an address")]
    Name(String),
    #[error("no more may be encrypted under these keys")]
    Exhausted,
    #[error("it is closed")]
    Closed,
}

/// What the side needs that is dialled. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// The address of who dials has to be in its certificate; see [`names_address`].
    pub verify_client_name: bool,
}

/// What the side needs that dials. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
}

/// Both, from one set of keys.
#[derive(Clone)]
pub struct TlsSettings {
    pub acceptor: Acceptor,
    pub connector: Connector,
}

impl Acceptor {
    /// Reads the stores. The error names key, file and what was expected.
    pub fn new(tls: &Tls) -> Result<Acceptor, StoreError> {
        let provider = provider(tls);
        let identity = identity(&tls.key_store, &provider)?;
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions(tls))
            .map_err(|error| StoreError::new(&tls.key_store, error))?;
        let builder = match (&tls.trust_store, tls.client_auth) {
            (_, ClientAuth::None) | (None, _) => builder.with_no_client_auth(),
            (Some(store), auth) => {
                builder.with_client_cert_verifier(trust(store)?.client_verifier(auth, &provider))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(OneCertificate(identity)));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Acceptor { config: Arc::new(config), verify_client_name: tls.verify_client_name })
    }
}

impl Connector {
    /// Reads the stores. There has to be a trust store: nobody is dialled blindly.
    pub fn new(tls: &Tls) -> Result<Connector, StoreError> {
        let Some(store) = &tls.trust_store else {
            let problem = format!("{}trustStore.location is missing", tls.prefix);
            return Err(StoreError::new(&tls.key_store, problem));
        };
        Connector::with(tls, trust(store)?, tls.verify_server_name)
    }

    /// To a server of the same keys, under its own certificate: nobody else's is accepted.
    pub fn to_ourselves(tls: &Tls) -> Result<Connector, StoreError> {
        let mut contents = store::read(&tls.key_store)?;
        contents.trusted.clear();
        let own = Arc::new(Trust::new(&tls.key_store, contents)?);
        Connector::with(tls, own, false)
    }

    fn with(tls: &Tls, trust: Arc<Trust>, verify_name: bool) -> Result<Connector, StoreError> {
        let provider = provider(tls);
        let identity = identity(&tls.key_store, &provider)?;
        let verifier = trust.server_verifier(verify_name, &provider);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(tls))
            .map_err(|error| StoreError::new(&tls.key_store, error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(OneCertificate(identity)));
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Connector { config: Arc::new(config) })
    }
}

impl TlsSettings {
    pub fn new(tls: &Tls) -> Result<TlsSettings, StoreError> {
        Ok(TlsSettings { acceptor: Acceptor::new(tls)?, connector: Connector::new(tls)? })
    }
}

/// The subject of a certificate as Java writes it; the id of scheme `x509`. `None`: malformed.
/// Source: ZooKeeper `X509AuthenticationProvider#getClientId`.
pub fn subject(certificate: &[u8]) -> Option<String> {
    Certificate::parse(certificate)?.subject()
}

/// ring, with the suites that are wanted, in our order of preference.
fn provider(tls: &Tls) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !tls.cipher_suites.is_empty() {
        provider.cipher_suites.retain(|suite| {
            let ours = format!("{:?}", suite.suite());
            // rustls has its own prefix for those of TLS 1.3.
            tls.cipher_suites
                .iter()
                .any(|name| *name == ours || name.strip_prefix("TLS_") == ours.strip_prefix("TLS13_"))
        });
    }
    Arc::new(provider)
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    let version = |version: &TlsVersion| match version {
        TlsVersion::V1_2 => &rustls::version::TLS12,
        TlsVersion::V1_3 => &rustls::version::TLS13,
    };
    tls.versions.iter().map(version).collect()
}

/// The key of a store with its certificates. Of several keys the first by alias.
fn identity(store: &Store, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, StoreError> {
    let wrong = |problem: String| StoreError::new(store, problem);
    let mut keys = store::read(store)?.keys;
    keys.sort_by(|a, b| a.alias.cmp(&b.alias));
    if keys.len() > 1 {
        let aliases: Vec<&str> = keys.iter().map(|entry| entry.alias.as_str()).collect();
        tracing::warn!(
            "{}={}: {} keys ({}); the first is used",
            store.key,
            store.location.display(),
            keys.len(),
            aliases.join(", ")
        );
    }
    let Some(entry) = keys.into_iter().next() else {
        return Err(wrong("holds no private key; expected one with its certificate".into()));
    };
    let key = PrivateKeyDer::try_from(entry.key)
        .map_err(|_| wrong("its private key is malformed; expected PKCS#8".into()))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| {
        wrong(format!(
            "its private key cannot be used ({error}); expected RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519"
        ))
    })?;
    let Some(leaf) = entry.chain.first() else {
        return Err(wrong("holds no certificate of its private key; expected that and its issuers".into()));
    };
    let certificate =
        Certificate::parse(leaf).ok_or_else(|| wrong("its certificate is malformed".to_owned()))?;
    if key.public_key().is_some_and(|ours| ours.as_ref() != certificate.public_key) {
        return Err(wrong("its first certificate is not that of its private key".into()));
    }
    warn_of_end(store, &certificate);
    let chain = entry.chain.into_iter().map(CertificateDer::from).collect();
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

fn warn_of_end(store: &Store, certificate: &Certificate<'_>) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now_s = i64::try_from(now).unwrap_or(i64::MAX);
    let place = format!("{}={}", store.key, store.location.display());
    if !certificate.is_valid_at(now_s) {
        tracing::warn!("{place}: the certificate has ended or has not begun; others will not accept it");
    } else if certificate.valid_to_s - now_s < ENDS_SOON_S {
        tracing::warn!("{place}: the certificate ends in {} hours", (certificate.valid_to_s - now_s) / 3600);
    }
}

fn trust(store: &Store) -> Result<Arc<Trust>, StoreError> {
    Ok(Arc::new(Trust::new(store, store::read(store)?)?))
}

/// The same certificate for everybody, whatever name was asked for.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl rustls::client::ResolvesClientCert for OneCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
