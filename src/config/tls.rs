//! `ssl.*` and `ssl.quorum.*`: what a TLS port is made of. Text alone; stores are read by whoever opens the port.
//!
//! Source: ZooKeeper `X509Util`, `ClientX509Util`.

use std::path::PathBuf;

use super::build::Values;
use super::error::{ConfigError, Notice, Origin};
use super::{Secret, keys};

/// Keys of client ports begin with this.
pub const CLIENT_PREFIX: &str = "ssl.";
/// Keys of the ports between servers begin with this.
pub const QUORUM_PREFIX: &str = "ssl.quorum.";

/// One set of TLS keys, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// `ssl.` or `ssl.quorum.`, to name keys by.
    pub prefix: &'static str,
    /// `keyStore.*`: our certificate and its key.
    pub key_store: Store,
    /// `trustStore.*`: whose certificates are good. There is one wherever anything is to be verified.
    pub trust_store: Option<Store>,
    /// `enabledProtocols`, else what `protocol` names, else both. Never empty.
    pub versions: Vec<TlsVersion>,
    /// `ciphersuites`, IANA's names of those we have; empty: all of them.
    pub cipher_suites: Vec<&'static str>,
    /// `clientAuth`, default need.
    pub client_auth: ClientAuth,
    /// `hostnameVerification`, default yes: the name of the server we dial has to be in its certificate.
    pub verify_server_name: bool,
    /// `clientHostnameVerification`: the address of who dials us has to be in its certificate. Only where it is written:
    /// ZooKeeper's own default between servers is yes, which its `fips-mode`, by default on, leaves without effect.
    pub verify_client_name: bool,
    /// `handshakeDetectionTimeoutMillis`, default 5000: how long the first byte of a connection to a port of both
    /// kinds is waited for.
    pub detection_timeout_ms: u32,
}

/// A key store or trust store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The key that names it, for messages.
    pub key: String,
    pub origin: Origin,
    pub location: PathBuf,
    /// `type`; `None` leaves it to the file.
    pub kind: Option<StoreKind>,
    pub password: Password,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    Pem,
    /// Java takes either for the other, and so do we: the file says which it is.
    JksOrPkcs12,
}

/// Where a store's password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// Written out; empty where nothing was.
    Given(Secret),
    /// The text of this file, without the end of its line. Wins over one that is written out.
    /// Source: ZooKeeper `SecretUtils#readSecret`.
    File(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// `clientAuth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    None,
    /// They may show one, which has to be good.
    Want,
    /// They have to.
    Need,
}

/// The suites there are, by IANA's names. What else may be listed (CBC, RSA key exchange) is passed over.
pub const CIPHER_SUITES: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

const NO_REVOCATION: &str = "revocation of certificates is not checked here, and to pass over this key would accept \
                             revoked ones; remove it, and revoke by removing from the trust store";

/// Reads the keys of one prefix. `what` is the key that needs them, for messages.
pub(super) fn tls(
    values: &Values,
    prefix: &'static str,
    what: &'static str,
    notices: &mut Vec<Notice>,
) -> Result<Tls, ConfigError> {
    let key = |suffix: &str| format!("{prefix}{suffix}");
    for suffix in ["crl", "ocsp"] {
        if values.flag(&key(suffix)) {
            return Err(values.unsupported(&key(suffix), NO_REVOCATION));
        }
    }
    let client_auth = match values.choice(&key("clientAuth")) {
        "none" => ClientAuth::None,
        "want" => ClientAuth::Want,
        _ => ClientAuth::Need,
    };
    let missing = |suffix: &str, reason: String| ConfigError::Contradiction {
        origin: values.origin(what),
        reason: format!("{} is missing: {reason}", key(suffix)),
    };
    let key_store = store(values, &key("keyStore"))?
        .ok_or_else(|| missing("keyStore.location", format!("{what} needs a certificate and its key")))?;
    let trust_store = store(values, &key("trustStore"))?;
    let trust_needed = client_auth != ClientAuth::None || prefix == QUORUM_PREFIX;
    if trust_store.is_none() && trust_needed {
        let way_out = match prefix {
            QUORUM_PREFIX => "",
            _ => " (with ssl.clientAuth=none clients are not asked for any)",
        };
        let reason = format!("{what} verifies the certificates of others by it{way_out}");
        return Err(missing("trustStore.location", reason));
    }
    Ok(Tls {
        prefix,
        key_store,
        trust_store,
        versions: versions(values, prefix, notices)?,
        cipher_suites: cipher_suites(values, prefix, notices)?,
        client_auth,
        verify_server_name: values.flag(&key("hostnameVerification")),
        verify_client_name: values.is_given(&key("clientHostnameVerification"))
            && values.flag(&key("clientHostnameVerification")),
        detection_timeout_ms: values.number(&key("handshakeDetectionTimeoutMillis")),
    })
}

fn store(values: &Values, stem: &str) -> Result<Option<Store>, ConfigError> {
    let location = format!("{stem}.location");
    let Some(path) = values.text(&location) else { return Ok(None) };
    let kind = match values.choice(&format!("{stem}.type")) {
        "" => None,
        "PEM" => Some(StoreKind::Pem),
        "BCFKS" => {
            let reason = "BCFKS stores are not read here; convert it to PEM, PKCS12 or JKS";
            return Err(values.unsupported(&format!("{stem}.type"), reason));
        }
        _ => Some(StoreKind::JksOrPkcs12),
    };
    if kind.is_none() && path.to_ascii_lowercase().ends_with(".bcfks") {
        let reason = "BCFKS stores are not read here; convert it to PEM, PKCS12 or JKS";
        return Err(values.unsupported(&location, reason));
    }
    let password = match values.text(&format!("{stem}.passwordPath")) {
        Some(path) => Password::File(PathBuf::from(path)),
        None => {
            Password::Given(Secret(values.text(&format!("{stem}.password")).unwrap_or_default().to_owned()))
        }
    };
    Ok(Some(Store {
        origin: values.origin(&location),
        key: location,
        location: PathBuf::from(path),
        kind,
        password,
    }))
}

fn versions(
    values: &Values,
    prefix: &str,
    notices: &mut Vec<Notice>,
) -> Result<Vec<TlsVersion>, ConfigError> {
    let of_one = format!("{prefix}protocol");
    let of_list = format!("{prefix}enabledProtocols");
    let (key, listed) = if values.is_given(&of_list) {
        (of_list.clone(), values.list(&of_list))
    } else if values.is_given(&of_one) {
        (of_one.clone(), values.list(&of_one))
    } else {
        return Ok(vec![TlsVersion::V1_3, TlsVersion::V1_2]);
    };
    let mut versions = Vec::new();
    let mut passed_over = Vec::new();
    for name in listed {
        let found: &[TlsVersion] = match name.as_str() {
            "TLSv1.3" => &[TlsVersion::V1_3],
            "TLSv1.2" => &[TlsVersion::V1_2],
            // A context of Java that means every version it has.
            "TLS" | "Default" => &[TlsVersion::V1_3, TlsVersion::V1_2],
            _ => {
                passed_over.push(name);
                continue;
            }
        };
        for version in found {
            if !versions.contains(version) {
                versions.push(*version);
            }
        }
    }
    if versions.is_empty() {
        return Err(values.wrong(&key, "TLSv1.3, TLSv1.2 or both; older versions are not spoken here".into()));
    }
    if !passed_over.is_empty() {
        notices.push(Notice::PassedOver { origin: values.origin(&key), key, names: passed_over });
    }
    Ok(versions)
}

fn cipher_suites(
    values: &Values,
    prefix: &str,
    notices: &mut Vec<Notice>,
) -> Result<Vec<&'static str>, ConfigError> {
    let key = format!("{prefix}ciphersuites");
    let listed = values.list(&key);
    let mut suites = Vec::new();
    let mut passed_over = Vec::new();
    for name in &listed {
        match CIPHER_SUITES.iter().find(|suite| *suite == name) {
            Some(suite) if suites.contains(suite) => {}
            Some(suite) => suites.push(*suite),
            None => passed_over.push(name.clone()),
        }
    }
    if suites.is_empty() && !listed.is_empty() {
        return Err(values.wrong(&key, format!("at least one of {}", CIPHER_SUITES.join(", "))));
    }
    if !passed_over.is_empty() {
        notices.push(Notice::PassedOver { origin: values.origin(&key), key, names: passed_over });
    }
    Ok(suites)
}

/// The written keys of client TLS, for where no port uses them.
pub(super) fn written(values: &Values) -> Vec<String> {
    let of_clients = |name: &&str| {
        keys::find(name).is_some_and(|key| key.effect == keys::Effect::Used)
            && !name.starts_with(QUORUM_PREFIX)
    };
    values.family(CLIENT_PREFIX).map(|(name, _)| name).filter(of_clients).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sources::Merged;
    use super::super::tests::{error, load_text, notices, sources, with};
    use super::*;

    const STORES: &str =
        "secureClientPort=2281\nssl.keyStore.location=/k.jks\nssl.trustStore.location=/t.pem";

    fn secure(lines: &str) -> Tls {
        with(&format!("{STORES}\n{lines}")).client_tls.expect("a TLS port is configured")
    }

    #[test]
    fn defaults_of_a_secure_port() {
        let config = with(STORES);
        assert_eq!(config.secure_client_address.as_ref().unwrap().to_string(), "*:2281");
        assert!(!config.client_port_unification && !config.client_cert_reload);
        let tls = config.client_tls.unwrap();
        assert_eq!(tls.versions, [TlsVersion::V1_3, TlsVersion::V1_2]);
        assert_eq!((tls.client_auth, tls.cipher_suites.len()), (ClientAuth::Need, 0));
        assert!(tls.verify_server_name && !tls.verify_client_name);
        assert_eq!(tls.detection_timeout_ms, 5000);
        assert_eq!(tls.key_store.key, "ssl.keyStore.location");
        assert_eq!(tls.key_store.origin.to_string(), "conf/zoo.cfg:4");
        assert_eq!(
            (tls.key_store.kind, &tls.key_store.password),
            (None, &Password::Given(Secret(String::new())))
        );
        assert_eq!(tls.trust_store.unwrap().location, PathBuf::from("/t.pem"));
    }

    #[test]
    fn every_key_reaches_the_config() {
        let tls = secure(
            "ssl.keyStore.type=jks\nssl.keyStore.password=a\nssl.trustStore.type=PEM\nssl.trustStore.password=b\n\
             ssl.trustStore.passwordPath=/p\nssl.enabledProtocols=TLSv1.2\nssl.protocol=TLSv1.3\n\
             ssl.ciphersuites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\nssl.clientAuth=Want\n\
             ssl.hostnameVerification=false\nssl.clientHostnameVerification=true\n\
             ssl.handshakeDetectionTimeoutMillis=7\nssl.crl=false\nssl.ocsp=no",
        );
        assert_eq!(tls.key_store.kind, Some(StoreKind::JksOrPkcs12));
        assert_eq!(tls.key_store.password, Password::Given(Secret("a".into())));
        let trust = tls.trust_store.unwrap();
        assert_eq!((trust.kind, trust.password), (Some(StoreKind::Pem), Password::File("/p".into())));
        assert_eq!(tls.versions, [TlsVersion::V1_2]);
        assert_eq!(tls.cipher_suites, ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]);
        assert_eq!(tls.client_auth, ClientAuth::Want);
        assert!(!tls.verify_server_name && tls.verify_client_name);
        assert_eq!(tls.detection_timeout_ms, 7);
        assert_eq!(secure("ssl.protocol=TLSv1.2").versions, [TlsVersion::V1_2]);
        assert_eq!(secure("ssl.protocol=TLS").versions.len(), 2);
        assert!(!format!("{:?}", secure("ssl.keyStore.password=hidden")).contains("hidden"));
    }

    #[test]
    fn one_port_may_be_both_and_a_server_line_may_name_the_secure_port() {
        let config = with(
            "client.portUnification=true\nclient.certReload=true\nssl.keyStore.location=/k\nssl.clientAuth=none",
        );
        assert!(config.client_port_unification && config.client_cert_reload);
        assert_eq!(config.secure_client_address, None);
        assert_eq!(config.client_tls.unwrap().trust_store, None);
        let config = with("server.1=h:1:2;2181;10.0.0.1:2281\nssl.keyStore.location=/k\nssl.clientAuth=none");
        assert_eq!(config.secure_client_address.unwrap().to_string(), "10.0.0.1:2281");
        assert_eq!(with("secureClientPort=0").client_tls, None);
    }

    #[test]
    fn what_is_missing_or_cannot_be_had_is_named() {
        let at = "conf/zoo.cfg";
        let said = error("secureClientPort=1");
        assert_eq!(
            said,
            format!(
                "{at}:2: ssl.keyStore.location is missing: secureClientPort needs a certificate and its key"
            )
        );
        let said = error("secureClientPort=1\nssl.keyStore.location=/k");
        assert!(said.starts_with(&format!("{at}:2: ssl.trustStore.location is missing: ")), "{said}");
        for (line, expected) in [
            ("ssl.clientAuth=maybe", "expected one of need, want, none"),
            ("ssl.keyStore.type=XYZ", "expected one of nothing, JKS, PKCS12, PEM, BCFKS"),
            ("ssl.keyStore.type=BCFKS", "BCFKS stores are not read here"),
            ("ssl.crl=true", "revocation of certificates is not checked here"),
            ("ssl.ocsp=true", "revocation of certificates is not checked here"),
            ("ssl.enabledProtocols=TLSv1", "expected TLSv1.3, TLSv1.2 or both"),
            ("ssl.ciphersuites=X", "expected at least one of TLS_AES_256_GCM_SHA384"),
            ("ssl.authProvider=mine", "only the x509 provider is known"),
        ] {
            let said = load_text(&format!("dataDir=/d\n{STORES}\n{line}")).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{at}:5: {line}: {expected}")), "{said}");
        }
        assert!(
            error("secureClientPort=2\nsecureClientPortAddress=h\nserver.1=h:1:2;1;3")
                .contains("give one of")
        );
    }

    #[test]
    fn servers_have_keys_of_their_own() {
        let text = "ssl.quorum.keyStore.location=/k\nssl.quorum.trustStore.location=/t\nssl.clientAuth=none\n\
                    ssl.quorum.keyStore.password=p";
        let merged = Merged::of(&sources(text)).unwrap();
        let values = Values { values: merged.values, home: Origin::Default };
        let mut notices = Vec::new();
        let quorum = tls(&values, QUORUM_PREFIX, "sslQuorum", &mut notices).unwrap();
        assert_eq!(quorum.key_store.key, "ssl.quorum.keyStore.location");
        assert_eq!(quorum.key_store.password, Password::Given(Secret("p".into())));
        assert_eq!((quorum.client_auth, quorum.verify_server_name), (ClientAuth::Need, true));
        assert!(!quorum.verify_client_name && notices.is_empty());
        let merged =
            Merged::of(&sources("ssl.quorum.keyStore.location=/k\nssl.quorum.clientAuth=none")).unwrap();
        let values = Values { values: merged.values, home: Origin::Default };
        let said = tls(&values, QUORUM_PREFIX, "sslQuorum", &mut notices).unwrap_err().to_string();
        assert!(said.contains("ssl.quorum.trustStore.location is missing"), "{said}");
    }

    #[test]
    fn what_is_passed_over_is_named() {
        let all = notices(&format!(
            "{STORES}\nssl.enabledProtocols=TLSv1.3,TLSv1.1\n\
             ssl.ciphersuites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_AES_128_GCM_SHA256"
        ));
        assert_eq!(
            all,
            [
                "conf/zoo.cfg:6: ssl.enabledProtocols: not offered here, passed over: TLSv1.1",
                "conf/zoo.cfg:7: ssl.ciphersuites: not offered here, passed over: TLS_RSA_WITH_AES_128_CBC_SHA",
            ]
        );
        let all = notices("ssl.keyStore.location=/k\nssl.crl=true\nssl.quorum.keyStore.location=/q");
        assert_eq!(
            all,
            [
                "keys of ensembles, without effect on a standalone server: ssl.quorum.keyStore.location",
                "keys of TLS, without effect as no client port speaks it (secureClientPort, client.portUnification): \
                 ssl.crl, ssl.keyStore.location",
            ]
        );
    }
}
