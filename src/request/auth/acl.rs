//! Access lists: who passes, what may be stored, what may be seen.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::scheme::Scheme;
use super::{AuthOptions, Identities};
use crate::proto::acl::{OPEN_UNSAFE, encode_list};
use crate::proto::{Acl, AclEntry, ErrorCode, FRAME_BYTES_MAX, Perms};

/// Bytes of an encoded list that may be stored. `auth` entries multiply with a connection's identities, and the result still
/// has to fit into an answer.
const LIST_BYTES_MAX: usize = FRAME_BYTES_MAX as usize;

/// Lists up to this length are searched for duplicates by comparing all with all.
const SHORT_LIST_LEN: usize = 8;

/// True if the identities have one of the `wanted` permissions by the list. An empty list allows everything.
///
/// Source: ZooKeeper `ZooKeeperServer#checkACL`.
pub fn check_acl(acl: Acl<'_>, wanted: Perms, identities: &Identities, options: &AuthOptions) -> bool {
    if acl.bytes() == OPEN_UNSAFE && Perms::ALL.meets(wanted) {
        return true;
    }
    if options.skip_acl || acl.is_empty() || identities.is_super() {
        return true;
    }
    acl.entries().filter(|entry| entry.perms.meets(wanted)).any(|entry| {
        let (Some(name), Some(id)) = (entry.scheme.as_deref(), entry.id.as_deref()) else { return false };
        if is_anyone(name, id) {
            return true;
        }
        let Some(scheme) = Scheme::of(name, options) else { return false };
        let address = identities.address();
        identities
            .iter()
            .any(|identity| *identity.scheme == *name && scheme.matches(&identity.id, address, id, options))
    })
}

/// The list to store for what a client sent: duplicates dropped, `auth` replaced by what the connection authenticated as, and
/// every entry valid. Encoded; borrowed if nothing had to change.
///
/// Errors: [`ErrorCode::InvalidAcl`], and [`ErrorCode::MarshallingError`] for a null id where one is needed.
/// Source: ZooKeeper `PrepRequestProcessor#fixupACL`.
pub fn fix_up_acl<'a>(
    acl: Option<Acl<'a>>,
    identities: &Identities,
    options: &AuthOptions,
) -> Result<Cow<'a, [u8]>, ErrorCode> {
    let acl = acl.ok_or(ErrorCode::InvalidAcl)?;
    if acl.bytes() == OPEN_UNSAFE {
        return Ok(Cow::Borrowed(acl.bytes()));
    }
    let mut entries: Vec<AclEntry<'_>> = acl.entries().collect();
    let count = entries.len();
    drop_duplicates(&mut entries);
    let mut changed = entries.len() != count;
    let mut stored: Vec<AclEntry<'_>> = Vec::with_capacity(entries.len());
    let mut bytes = size_of::<i32>();
    let mut store = |entry: AclEntry<'a>| {
        bytes += 3 * size_of::<i32>() + text_len(&entry.scheme) + text_len(&entry.id);
        stored.push(entry);
        if bytes > LIST_BYTES_MAX { Err(ErrorCode::InvalidAcl) } else { Ok(()) }
    };
    for entry in entries {
        let name = entry.scheme.as_deref().ok_or(ErrorCode::InvalidAcl)?;
        if name == "auth" {
            let mut expanded = false;
            for identity in identities.iter() {
                if Scheme::of(&identity.scheme, options).is_some_and(Scheme::is_authenticated) {
                    expanded = true;
                    let scheme = Some(Cow::Owned(identity.scheme.to_string()));
                    store(AclEntry {
                        perms: entry.perms,
                        scheme,
                        id: Some(Cow::Owned(identity.id.to_string())),
                    })?;
                }
            }
            if !expanded {
                return Err(ErrorCode::InvalidAcl);
            }
            changed = true;
            continue;
        }
        let scheme = Scheme::of(name, options);
        if name != "world" && scheme.is_none() {
            return Err(ErrorCode::InvalidAcl);
        }
        let id = entry.id.as_deref().ok_or(ErrorCode::MarshallingError)?;
        if !is_anyone(name, id) && !scheme.is_some_and(|scheme| scheme.accepts(id)) {
            return Err(ErrorCode::InvalidAcl);
        }
        // Malformed text was replaced while reading and is stored as read.
        changed |= [&entry.scheme, &entry.id].into_iter().any(|text| matches!(text, Some(Cow::Owned(_))));
        store(entry)?;
    }
    if stored.is_empty() {
        return Err(ErrorCode::InvalidAcl);
    }
    if !changed {
        return Ok(Cow::Borrowed(acl.bytes()));
    }
    let mut out = Vec::with_capacity(bytes);
    encode_list(&stored, &mut out);
    assert_eq!(out.len(), bytes);
    Ok(Cow::Owned(out))
}

/// The list as getACL may show it to a connection that has READ or ADMIN: without ADMIN, digests are hidden. Encoded.
///
/// Source: ZooKeeper `FinalRequestProcessor#processRequest`, case getACL.
pub fn redact_for<'a>(acl: Acl<'a>, identities: &Identities, options: &AuthOptions) -> Cow<'a, [u8]> {
    let is_digest = |entry: &AclEntry<'_>| entry.scheme.as_deref() == Some("digest");
    if !acl.entries().any(|entry| is_digest(&entry)) || check_acl(acl, Perms::ADMIN, identities, options) {
        return Cow::Borrowed(acl.bytes());
    }
    let redacted: Vec<AclEntry<'_>> = acl
        .entries()
        .map(|mut entry| {
            let user = entry.id.as_deref().filter(|_| is_digest(&entry)).and_then(|id| id.split_once(':'));
            if let Some((user, _)) = user {
                entry.id = Some(Cow::Owned(format!("{user}:x")));
            }
            entry
        })
        .collect();
    let mut out = Vec::with_capacity(acl.bytes().len());
    encode_list(&redacted, &mut out);
    Cow::Owned(out)
}

fn is_anyone(scheme: &str, id: &str) -> bool {
    scheme == "world" && id == "anyone"
}

fn text_len(text: &Option<Cow<'_, str>>) -> usize {
    text.as_deref().map_or(0, str::len)
}

/// Keeps the first of equal entries.
fn drop_duplicates(entries: &mut Vec<AclEntry<'_>>) {
    if entries.len() <= SHORT_LIST_LEN {
        let mut kept = 0;
        for index in 0..entries.len() {
            if !entries[..kept].contains(&entries[index]) {
                entries.swap(kept, index);
                kept += 1;
            }
        }
        entries.truncate(kept);
        return;
    }
    let mut seen = BTreeSet::new();
    let first: Vec<bool> = entries
        .iter()
        .map(|entry| seen.insert((entry.perms.0, entry.scheme.as_deref(), entry.id.as_deref())))
        .collect();
    let mut first = first.into_iter();
    entries.retain(|_| first.next().expect("one for each entry"));
}
