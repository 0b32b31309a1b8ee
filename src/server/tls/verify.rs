//! Whose certificates are good: those a trust store's certificates have signed, and those in the store itself, as Java
//! has it. A certificate has to be within its time in any case, which Java does not ask of one in the store.
//!
//! Source: OpenJDK `PKIXValidator`, ZooKeeper `X509Util#createTrustManager`, `ZKTrustManager`.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};

use super::certificate::Certificate;
use super::store::{Contents, StoreError};
use crate::config::tls::{ClientAuth, Store};

/// A trust store, ready to verify by.
#[derive(Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    /// Good without a signature above them.
    listed: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// From what a store holds: its trusted certificates, and of a key its own certificate.
    pub fn new(store: &Store, contents: Contents) -> Result<Trust, StoreError> {
        let mut roots = RootCertStore::empty();
        let mut listed = Vec::new();
        let of_keys = contents
            .keys
            .into_iter()
            .filter_map(|entry| Some((entry.alias, entry.chain.into_iter().next()?)));
        let all = contents.trusted.into_iter().map(|entry| (entry.alias, entry.certificate)).chain(of_keys);
        for (alias, certificate) in all {
            let certificate = CertificateDer::from(certificate);
            if let Err(error) = roots.add(certificate.clone()) {
                tracing::warn!(
                    "{}={}: a certificate (alias {alias:?}) cannot be read and is passed over: {error}",
                    store.key,
                    store.location.display()
                );
                continue;
            }
            listed.push(certificate);
        }
        if listed.is_empty() {
            return Err(StoreError::new(store, "holds no certificate to trust; expected at least one"));
        }
        Ok(Trust { roots: Arc::new(roots), listed })
    }

    /// `None`: not in the store.
    fn listed(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Result<(), Error>> {
        self.listed.iter().find(|listed| *listed == certificate)?;
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let invalid = |problem| Some(Err(Error::InvalidCertificate(problem)));
        match Certificate::parse(certificate) {
            None => invalid(CertificateError::BadEncoding),
            Some(parsed) if now_s < parsed.valid_from_s => invalid(CertificateError::NotValidYet),
            Some(parsed) if now_s > parsed.valid_to_s => invalid(CertificateError::Expired),
            Some(_) => Some(Ok(())),
        }
    }

    /// Who is asked for a certificate has to show a good one.
    pub fn client_verifier(
        self: &Arc<Self>,
        auth: ClientAuth,
        provider: &Arc<CryptoProvider>,
    ) -> Arc<dyn ClientCertVerifier> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let builder = if auth == ClientAuth::Need { builder } else { builder.allow_unauthenticated() };
        let signed = builder.build().expect("there are roots and no revocation lists");
        Arc::new(ClientVerifier { trust: self.clone(), signed })
    }

    /// For whoever dials; the name counts where `verify_name` says so.
    pub fn server_verifier(
        self: &Arc<Self>,
        verify_name: bool,
        provider: &CryptoProvider,
    ) -> Arc<dyn ServerCertVerifier> {
        let algorithms = provider.signature_verification_algorithms;
        Arc::new(ServerVerifier { trust: self.clone(), verify_name, algorithms })
    }
}

/// Whether a certificate names this address (`clientHostnameVerification`). A name is never looked up for an address.
pub fn names_address(certificate: &[u8], address: IpAddr) -> bool {
    let name = ServerName::IpAddress(address.to_canonical().into());
    ParsedCertificate::try_from(&CertificateDer::from(certificate))
        .and_then(|parsed| verify_server_name(&parsed, &name))
        .is_ok()
}

/// Whether a certificate that names no host among its alternative names has this one in its subject, which Java takes,
/// too. Source: OpenJDK `HostnameChecker#matchDNS`.
fn is_common_name(certificate: &[u8], name: &ServerName<'_>) -> bool {
    let ServerName::DnsName(host) = name else { return false };
    Certificate::parse(certificate)
        .filter(|parsed| !parsed.names_hosts)
        .and_then(|parsed| parsed.common_name())
        .is_some_and(|common| common.eq_ignore_ascii_case(host.as_ref()))
}

#[derive(Debug)]
struct ClientVerifier {
    trust: Arc<Trust>,
    signed: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.signed.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.trust.listed(certificate, now) {
            Some(listed) => listed.map(|()| ClientCertVerified::assertion()),
            None => self.signed.verify_client_cert(certificate, intermediates, now),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct ServerVerifier {
    trust: Arc<Trust>,
    verify_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        match self.trust.listed(certificate, now) {
            Some(listed) => listed?,
            None => verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.trust.roots,
                intermediates,
                now,
                self.algorithms.all,
            )?,
        }
        if self.verify_name && !is_common_name(certificate, name) {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
