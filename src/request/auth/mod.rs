//! Who a connection is, and what it may do.
//!
//! - [`Identities`]: what a connection has shown to be; [`authenticate`] adds to it.
//! - [`check_acl`], [`fix_up_acl`], [`redact_for`] (in `acl`): access lists against identities.
//! - `scheme`: the rules of each scheme, which ZooKeeper calls a provider.
//!
//! Identities are cheap to clone: a write takes those of the moment it was received along to another core, and what the
//! connection shows later does not change them.

mod acl;
pub mod sasl;
mod scheme;

pub use acl::{check_acl, fix_up_acl, redact_for};
pub use scheme::digest_id;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use scheme::Scheme;

use crate::config::{Auth, AuthProvider, DigestAlgorithm, Secret};

/// Identities one connection may have. ZooKeeper has no limit; every access check walks them all.
pub const IDENTITIES_MAX: usize = 256;
/// Bytes of all identities of one connection.
pub const IDENTITY_BYTES_MAX: usize = 2 << 20;

/// How connections authenticate and lists are checked. Checked configuration: nothing in here can be wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthOptions {
    /// `skipACL`: every check passes. Lists are still to be valid.
    pub skip_acl: bool,
    /// `DigestAuthenticationProvider.enabled`.
    pub digest_enabled: bool,
    /// `DigestAuthenticationProvider.digestAlg`.
    pub digest_algorithm: DigestAlgorithm,
    /// `DigestAuthenticationProvider.superDigest`, as `super:<base64>`.
    pub super_digest: Option<Secret>,
    /// A SASL provider is configured.
    pub sasl_enabled: bool,
    /// Users of DIGEST-MD5; `None`: exchanges are answered as by a server without SASL.
    pub sasl_users: Option<Arc<BTreeMap<String, Secret>>>,
    /// `allowSaslFailedClients`: who fails goes on as nobody.
    pub allow_sasl_failed: bool,
    /// `superUser` and `superUser.*`: authorization ids that are super.
    pub sasl_super_users: Vec<String>,
    /// `letAnySaslUserDoX`: the id in a list that every SASL user matches.
    pub sasl_any_user: Option<String>,
    /// An X.509 provider is configured.
    pub x509_enabled: bool,
    /// `X509AuthenticationProvider.superUser`: the name that is super.
    pub x509_super_user: Option<String>,
    /// `ensembleAuthName`, where the ensemble provider is configured; without names it accepts any.
    pub ensemble_names: Option<Vec<String>>,
    /// `enforce.auth.schemes` where enforced, or `sasl` for `sessionRequireClientSASLAuth`; empty: nothing is enforced.
    pub enforce_schemes: Vec<String>,
}

impl Default for AuthOptions {
    /// What ZooKeeper does without configuration.
    fn default() -> AuthOptions {
        AuthOptions {
            skip_acl: false,
            digest_enabled: true,
            digest_algorithm: DigestAlgorithm::Sha1,
            super_digest: None,
            sasl_enabled: false,
            sasl_users: None,
            allow_sasl_failed: false,
            sasl_super_users: Vec::new(),
            sasl_any_user: None,
            x509_enabled: false,
            x509_super_user: None,
            ensemble_names: None,
            enforce_schemes: Vec::new(),
        }
    }
}

impl AuthOptions {
    /// Those of a configuration; `skip_acl` is its `skipACL`.
    pub fn of_config(auth: &Auth, skip_acl: bool) -> AuthOptions {
        let has = |provider| auth.providers.contains(&provider);
        let enforce_schemes = if auth.session_require_client_sasl_auth {
            vec!["sasl".to_owned()]
        } else {
            auth.enforced_schemes.clone().unwrap_or_default()
        };
        AuthOptions {
            skip_acl,
            digest_enabled: auth.digest_enabled || has(AuthProvider::Digest),
            digest_algorithm: auth.digest_algorithm,
            super_digest: auth.super_digest.clone(),
            sasl_enabled: has(AuthProvider::Sasl),
            sasl_users: auth.sasl_users.clone().map(Arc::new),
            allow_sasl_failed: auth.allow_sasl_failed_clients,
            sasl_super_users: auth.super_users.clone(),
            sasl_any_user: auth.let_any_sasl_user_do_x.clone(),
            x509_enabled: has(AuthProvider::X509),
            x509_super_user: auth.x509_super_user.clone(),
            ensemble_names: auth.ensemble_names.clone(),
            enforce_schemes,
        }
    }
}

/// What a connection has shown to be: its address, then what it authenticated as, in that order and each once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identities(Arc<Shown>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Shown {
    list: Vec<Identity>,
    address: IpAddr,
    is_super: bool,
    /// Bytes of all schemes and ids. At most [`IDENTITY_BYTES_MAX`].
    bytes: usize,
}

/// One identity, as an entry of a list names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub scheme: Box<str>,
    pub id: Box<str>,
}

impl Identities {
    /// Those of a new connection from `peer`: its address. Source: ZooKeeper `NIOServerCnxn` constructor.
    pub fn new(peer: IpAddr) -> Identities {
        // An IPv4 peer of a socket that takes both is an IPv4 peer.
        let address = peer.to_canonical();
        let mut identities =
            Identities(Arc::new(Shown { list: Vec::new(), address, is_super: false, bytes: 0 }));
        let added = identities.add("ip", &scheme::address_text(address));
        assert!(added, "the first identity has room");
        identities
    }

    /// Those another server says its client has, in its order. `None` if there are more than a client may have.
    pub fn of_peer<'a>(shown: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<Identities> {
        let address = shown
            .clone()
            .find(|(scheme, _)| *scheme == "ip")
            .and_then(|(_, id)| id.parse().ok())
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        let list = Shown { list: Vec::new(), address, is_super: false, bytes: 0 };
        let mut identities = Identities(Arc::new(list));
        for (scheme, id) in shown {
            if !identities.add(scheme, id) {
                return None;
            }
        }
        Some(identities)
    }

    /// Passes every access check.
    pub fn is_super(&self) -> bool {
        self.0.is_super
    }

    /// Where the connection comes from.
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// The same as Java prints it.
    pub fn address_text(&self) -> String {
        scheme::address_text(self.0.address)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.0.list.iter()
    }

    /// The entries of a whoAmI answer: scheme and user. Source: ZooKeeper `AuthUtil#getClientInfos`.
    pub fn who_am_i<'a>(&'a self, options: &AuthOptions) -> Vec<(&'a str, &'a str)> {
        let user = |identity: &'a Identity| match Scheme::of(&identity.scheme, options) {
            Some(scheme) => scheme.user(&identity.id),
            None => "",
        };
        self.iter().map(|identity| (&*identity.scheme, user(identity))).collect()
    }

    /// Adds the authorization id of a finished SASL exchange. False if there is no room.
    /// Source: ZooKeeper `ZooKeeperServer#processSasl`.
    pub fn add_sasl(&mut self, authorization_id: &str, options: &AuthOptions) -> bool {
        let is_super = options.sasl_super_users.iter().any(|user| user == authorization_id);
        self.add("sasl", authorization_id) && (!is_super || self.add("super", ""))
    }

    /// Adds the subject of a client certificate that TLS has verified, as RFC 2253 writes it. False if there is no room.
    /// Source: ZooKeeper `X509AuthenticationProvider#handleAuthentication`.
    pub fn add_x509(&mut self, subject: &str, options: &AuthOptions) -> bool {
        let is_super = options.x509_super_user.as_deref() == Some(subject);
        (!is_super || self.add("super", subject)) && self.add("x509", subject)
    }

    /// Having it already is fine. False if there is no room.
    fn add(&mut self, scheme: &str, id: &str) -> bool {
        if self.iter().any(|identity| *identity.scheme == *scheme && *identity.id == *id) {
            return true;
        }
        let bytes = self.0.bytes + scheme.len() + id.len();
        if self.0.list.len() == IDENTITIES_MAX || bytes > IDENTITY_BYTES_MAX {
            return false;
        }
        let shown = Arc::make_mut(&mut self.0);
        shown.list.push(Identity { scheme: scheme.into(), id: id.into() });
        shown.is_super |= scheme == "super";
        shown.bytes = bytes;
        true
    }
}

/// How an auth packet ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum AuthOutcome {
    /// Answered with no error; the connection goes on.
    Ok,
    /// Answered with AUTHFAILED, then closed.
    Failed,
    /// Closed without an answer: the client reached the wrong ensemble and is to try its other servers.
    CloseConnection,
}

/// Takes an auth packet. Scheme and data are as on the wire, where both may be null.
///
/// Source: ZooKeeper `ZooKeeperServer#processPacket`, case auth.
pub fn authenticate(
    scheme: Option<&str>,
    data: Option<&[u8]>,
    identities: &mut Identities,
    options: &AuthOptions,
) -> AuthOutcome {
    let accepted = match scheme.and_then(|scheme| Scheme::of(scheme, options)) {
        // The address is an identity from the start.
        Some(Scheme::Ip) => true,
        Some(Scheme::Digest) => {
            let Some(data) = data else { return AuthOutcome::Failed };
            let text = String::from_utf8_lossy(data);
            let id = digest_id(options.digest_algorithm, &text);
            let is_super = options.super_digest.as_ref().is_some_and(|secret| secret.0 == id);
            (!is_super || identities.add("super", "")) && identities.add("digest", &id)
        }
        Some(Scheme::Ensemble) => {
            let names = options.ensemble_names.as_deref().unwrap_or_default();
            let data = data.unwrap_or_default();
            if !data.is_empty() && !names.is_empty() && !names.iter().any(|name| name.as_bytes() == data) {
                return AuthOutcome::CloseConnection;
            }
            true
        }
        // SASL has its own packets, X.509 the TLS handshake; `world`, `auth` and `super` are nobody's to claim.
        Some(Scheme::Sasl | Scheme::X509) | None => false,
    };
    if accepted { AuthOutcome::Ok } else { AuthOutcome::Failed }
}

/// Whether connections have to authenticate by SASL before anything else.
/// Source: ZooKeeper `AuthenticationHelper#isSaslAuthRequired`.
pub fn is_sasl_required(options: &AuthOptions) -> bool {
    options.enforce_schemes.iter().any(|scheme| scheme == "sasl")
}

/// True if authentication is enforced and the connection has none of the schemes wanted: all its requests but auth and sasl
/// are answered with SESSIONCLOSEDREQUIRESASLAUTH and zxid 0, and the connection closes.
///
/// Source: ZooKeeper `AuthenticationHelper#enforceAuthentication`.
pub fn lacks_enforced_auth(identities: &Identities, options: &AuthOptions) -> bool {
    let wanted =
        |identity: &Identity| options.enforce_schemes.iter().any(|scheme| **scheme == *identity.scheme);
    !options.enforce_schemes.is_empty() && !identities.iter().any(wanted)
}

#[cfg(test)]
mod tests;
