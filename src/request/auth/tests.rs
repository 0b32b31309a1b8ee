use proptest::prelude::*;

use super::*;
use crate::config;
use crate::jute::{Reader, put_i32};
use crate::proto::acl::{OPEN_UNSAFE, READ_UNSAFE, encode_list};
use crate::proto::{Acl, AclEntry, ErrorCode, Perms};

fn from(address: &str) -> Identities {
    Identities::new(address.parse().unwrap())
}

/// From 10.0.0.1, authenticated as the digest users named.
fn users(names: &[&str]) -> Identities {
    let mut identities = from("10.0.0.1");
    for name in names {
        let outcome =
            authenticate(Some("digest"), Some(name.as_bytes()), &mut identities, &AuthOptions::default());
        assert_eq!(outcome, AuthOutcome::Ok);
    }
    identities
}

fn digest(text: &str) -> String {
    digest_id(DigestAlgorithm::Sha1, text)
}

type Text<'a> = Option<&'a str>;

fn encoded(entries: &[(i32, Text<'_>, Text<'_>)]) -> Vec<u8> {
    let entry = |&(perms, scheme, id): &(i32, Text<'_>, Text<'_>)| AclEntry {
        perms: Perms(perms),
        scheme: scheme.map(|s| s.to_owned().into()),
        id: id.map(|s| s.to_owned().into()),
    };
    let mut out = Vec::new();
    encode_list(&entries.iter().map(entry).collect::<Vec<_>>(), &mut out);
    out
}

fn list(entries: &[(i32, &str, &str)]) -> Vec<u8> {
    encoded(&entries.iter().map(|&(perms, scheme, id)| (perms, Some(scheme), Some(id))).collect::<Vec<_>>())
}

fn decoded(bytes: &[u8]) -> Acl<'_> {
    Acl::decode(&mut Reader::new(bytes)).unwrap().unwrap()
}

fn allowed(acl: &[u8], wanted: Perms, identities: &Identities) -> bool {
    check_acl(decoded(acl), wanted, identities, &AuthOptions::default())
}

/// The list a connection with these identities would store.
fn fixed(acl: &[u8], identities: &Identities) -> Result<Vec<u8>, ErrorCode> {
    fix_up_acl(Some(decoded(acl)), identities, &AuthOptions::default()).map(|bytes| bytes.into_owned())
}

const PERMS: [Perms; 5] = [Perms::READ, Perms::WRITE, Perms::CREATE, Perms::DELETE, Perms::ADMIN];

#[test]
fn world_has_the_permissions_of_its_entry_and_no_other() {
    for granted in 0..=Perms::ALL.0 {
        for wanted in PERMS {
            let acl = list(&[(granted, "world", "anyone")]);
            assert_eq!(allowed(&acl, wanted, &users(&[])), granted & wanted.0 != 0, "{granted} {wanted:?}");
        }
    }
    assert!(allowed(OPEN_UNSAFE, Perms::ALL, &users(&[])));
    assert!(allowed(READ_UNSAFE, Perms::READ | Perms::ADMIN, &users(&[])), "any of several is enough");
    assert!(!allowed(OPEN_UNSAFE, Perms(32), &users(&[])));
    assert!(allowed(&list(&[(99, "world", "anyone")]), Perms::READ, &users(&[])), "odd bits are just bits");
    assert!(!allowed(&list(&[(31, "world", "someone")]), Perms::READ, &users(&[])));
}

#[test]
fn an_empty_list_super_and_skip_acl_pass() {
    let closed = list(&[(31, "digest", "a:b")]);
    assert!(!allowed(&closed, Perms::READ, &users(&[])));
    assert!(allowed(&list(&[]), Perms::READ, &users(&[])));
    let mut minus_five = Vec::new();
    put_i32(&mut minus_five, -5);
    assert!(allowed(&minus_five, Perms::READ, &users(&[])));
    let options = AuthOptions { skip_acl: true, ..AuthOptions::default() };
    assert!(check_acl(decoded(&closed), Perms::ADMIN, &users(&[]), &options));
    let options = AuthOptions { super_digest: Some(Secret(digest("super:test"))), ..AuthOptions::default() };
    let mut root = users(&[]);
    assert_eq!(authenticate(Some("digest"), Some(b"super:test"), &mut root, &options), AuthOutcome::Ok);
    assert!(check_acl(decoded(&closed), Perms::ADMIN, &root, &options));
}

#[test]
fn entries_match_identities_of_their_scheme() {
    let me = digest("me:pw");
    for (acl, identities, expected) in [
        (list(&[(1, "digest", &me)]), users(&["me:pw"]), true),
        (list(&[(1, "digest", &me)]), users(&["me:other"]), false),
        (list(&[(1, "digest", &me)]), users(&["x:y", "me:pw"]), true),
        (list(&[(2, "digest", &me)]), users(&["me:pw"]), false),
        (list(&[(2, "digest", &me), (1, "ip", "10.0.0.0/8")]), users(&["me:pw"]), true),
        (list(&[(1, "ip", "10.0.0.1")]), users(&[]), true),
        (list(&[(1, "ip", "10.0.0.2")]), users(&[]), false),
        (list(&[(1, "ip", "10.0.0.0/8")]), from("::ffff:10.9.9.9"), true),
        (list(&[(1, "ip", "::/0")]), from("::1"), true),
        (list(&[(1, "auth", "")]), users(&["me:pw"]), false),
        (list(&[(1, "super", "")]), users(&["me:pw"]), false),
        (list(&[(1, "sasl", "bob")]), users(&[]), false),
        (list(&[(1, "nosuch", &me)]), users(&["me:pw"]), false),
    ] {
        assert_eq!(allowed(&acl, Perms::READ, &identities), expected, "{acl:?}");
    }
    // A scheme that is switched off matches nobody, even those who came with it before.
    let options = AuthOptions { digest_enabled: false, ..AuthOptions::default() };
    assert!(!check_acl(decoded(&list(&[(1, "digest", &me)])), Perms::READ, &users(&["me:pw"]), &options));
    // Null texts in what other servers stored match nobody.
    assert!(!allowed(
        &encoded(&[(31, None, Some("anyone")), (31, Some("world"), None)]),
        Perms::READ,
        &users(&[])
    ));
}

#[test]
fn sasl_and_x509_match_by_their_own_rules() {
    let options = AuthOptions {
        sasl_enabled: true,
        sasl_super_users: vec!["root".into()],
        sasl_any_user: Some("any".into()),
        x509_enabled: true,
        x509_super_user: Some("CN=root".into()),
        ..AuthOptions::default()
    };
    let allowed = |scheme: &str, id: &str, identities: &Identities| {
        check_acl(decoded(&list(&[(1, scheme, id)])), Perms::READ, identities, &options)
    };
    let sasl = |id: &str| {
        let mut identities = users(&[]);
        assert!(identities.add_sasl(id, &options));
        identities
    };
    let x509 = |id: &str| {
        let mut identities = users(&[]);
        assert!(identities.add_x509(id, &options));
        identities
    };
    assert!(allowed("sasl", "bob", &sasl("bob")) && !allowed("sasl", "bob", &sasl("eve")));
    assert!(allowed("sasl", "any", &sasl("eve")) && !allowed("sasl", "any", &users(&["a:b"])));
    assert!(allowed("sasl", "bob", &sasl("super")) && !allowed("x509", "bob", &sasl("super")));
    assert!(sasl("root").is_super() && allowed("digest", "a:b", &sasl("root")) && !sasl("super").is_super());
    assert!(allowed("x509", "CN=bob", &x509("CN=bob")) && !allowed("x509", "CN=bob", &x509("CN=eve")));
    assert!(x509("CN=root").is_super() && allowed("digest", "a:b", &x509("CN=root")));
    assert_eq!(sasl("root").who_am_i(&options), [("ip", "10.0.0.1"), ("sasl", "root"), ("super", "")]);
    for (scheme, id, valid) in
        [("sasl", "bob@R", true), ("sasl", "a@b@c", false), ("x509", "CN=a", true), ("x509", "a", false)]
    {
        let acl = list(&[(1, scheme, id)]);
        let fixed = fix_up_acl(Some(decoded(&acl)), &users(&[]), &options);
        assert_eq!(fixed.is_ok(), valid, "{scheme} {id}");
    }
}

/// The table of §8.2 and the order of §8.7: what becomes of each list a client may send.
#[test]
fn lists_are_fixed_up_as_documented() {
    let (me, too) = (digest("me:pw"), digest("too:pw"));
    let nobody = users(&[]);
    let only_me = users(&["me:pw"]);
    let both = users(&["me:pw", "too:pw"]);
    type Case<'a> =
        (Vec<(i32, Text<'a>, Text<'a>)>, &'a Identities, Result<Vec<(i32, &'a str, &'a str)>, ErrorCode>);
    let invalid = || Err(ErrorCode::InvalidAcl);
    let cases: Vec<Case<'_>> = vec![
        // Empty.
        (vec![], &nobody, invalid()),
        // World is anyone and nobody else.
        (vec![(31, Some("world"), Some("anyone"))], &nobody, Ok(vec![(31, "world", "anyone")])),
        (vec![(0, Some("world"), Some("anyone"))], &nobody, Ok(vec![(0, "world", "anyone")])),
        (vec![(99, Some("world"), Some("anyone"))], &nobody, Ok(vec![(99, "world", "anyone")])),
        (vec![(31, Some("world"), Some("someone"))], &nobody, invalid()),
        (vec![(31, Some("world"), Some(""))], &nobody, invalid()),
        // Null texts.
        (vec![(31, None, Some("anyone"))], &nobody, invalid()),
        (vec![(31, Some("world"), None)], &nobody, Err(ErrorCode::MarshallingError)),
        (vec![(31, Some("ip"), None)], &nobody, Err(ErrorCode::MarshallingError)),
        (vec![(31, Some("digest"), None)], &nobody, Err(ErrorCode::MarshallingError)),
        (vec![(31, Some("nosuch"), None)], &nobody, invalid()),
        // Schemes this server does not have, and those nobody may name.
        (vec![(31, Some("sasl"), Some("bob"))], &nobody, invalid()),
        (vec![(31, Some("x509"), Some("CN=bob"))], &nobody, invalid()),
        (vec![(31, Some("super"), Some(""))], &nobody, invalid()),
        (vec![(31, Some("ensemble"), Some("x"))], &nobody, invalid()),
        (vec![(31, Some(""), Some(""))], &nobody, invalid()),
        // Ids by the rules of their scheme.
        (vec![(1, Some("ip"), Some("10.0.0.0/8"))], &nobody, Ok(vec![(1, "ip", "10.0.0.0/8")])),
        (vec![(1, Some("ip"), Some("10.0.0.0/33"))], &nobody, invalid()),
        (vec![(1, Some("digest"), Some("a:b"))], &nobody, Ok(vec![(1, "digest", "a:b")])),
        (vec![(1, Some("digest"), Some("a:b:c"))], &nobody, invalid()),
        // `auth` is everything the connection authenticated as, with or without an id.
        (vec![(31, Some("auth"), Some(""))], &nobody, invalid()),
        (vec![(31, Some("auth"), None)], &both, Ok(vec![(31, "digest", &me), (31, "digest", &too)])),
        (
            vec![(31, Some("auth"), Some("ignored"))],
            &both,
            Ok(vec![(31, "digest", &me), (31, "digest", &too)]),
        ),
        (
            vec![(1, Some("world"), Some("anyone")), (31, Some("auth"), None), (2, Some("ip"), Some("::1"))],
            &both,
            Ok(vec![(1, "world", "anyone"), (31, "digest", &me), (31, "digest", &too), (2, "ip", "::1")]),
        ),
        // Duplicates go before `auth` is expanded, the order stays.
        (
            vec![
                (2, Some("ip"), Some("::1")),
                (1, Some("world"), Some("anyone")),
                (2, Some("ip"), Some("::1")),
                (3, Some("ip"), Some("::1")),
                (1, Some("world"), Some("anyone")),
            ],
            &nobody,
            Ok(vec![(2, "ip", "::1"), (1, "world", "anyone"), (3, "ip", "::1")]),
        ),
        (vec![(1, Some("auth"), None), (1, Some("auth"), None)], &only_me, Ok(vec![(1, "digest", &me)])),
        (
            vec![(1, Some("auth"), None), (1, Some("digest"), Some(&me))],
            &only_me,
            Ok(vec![(1, "digest", &me), (1, "digest", &me)]),
        ),
        // One bad entry spoils the list; the first bad one says how.
        (vec![(31, Some("world"), Some("anyone")), (31, Some("nosuch"), Some("x"))], &nobody, invalid()),
        (
            vec![(31, Some("ip"), None), (31, Some("nosuch"), Some("x"))],
            &nobody,
            Err(ErrorCode::MarshallingError),
        ),
    ];
    for (sent, identities, expected) in cases {
        let expected = expected.map(|entries| list(&entries));
        assert_eq!(fixed(&encoded(&sent), identities), expected, "{sent:?}");
    }
    assert_eq!(fix_up_acl(None, &nobody, &AuthOptions::default()), Err(ErrorCode::InvalidAcl));
    // skipACL skips checks and not this.
    let options = AuthOptions { skip_acl: true, ..AuthOptions::default() };
    let bad = list(&[(31, "nosuch", "x")]);
    assert_eq!(fix_up_acl(Some(decoded(&bad)), &nobody, &options), Err(ErrorCode::InvalidAcl));
}

#[test]
fn a_list_that_is_fine_is_not_copied_and_malformed_text_is_stored_as_read() {
    let options = AuthOptions::default();
    for bytes in [OPEN_UNSAFE.to_vec(), list(&[(1, "ip", "::1"), (31, "digest", "a:b")])] {
        let fixed = fix_up_acl(Some(decoded(&bytes)), &users(&[]), &options).unwrap();
        assert!(matches!(fixed, std::borrow::Cow::Borrowed(_)));
        assert_eq!(&*fixed, &*bytes);
    }
    let mut malformed = list(&[(31, "digest", "a:b")]);
    *malformed.last_mut().unwrap() = 0xff;
    assert_eq!(fixed(&malformed, &users(&[])), Ok(list(&[(31, "digest", "a:\u{fffd}")])));
}

#[test]
fn long_lists_lose_their_duplicates_too_and_expansion_is_bounded() {
    let ids: Vec<String> = (0..300).map(|n| format!("10.0.{}.{}", n / 100, n % 100)).collect();
    let once: Vec<(i32, &str, &str)> = ids.iter().map(|id| (1, "ip", id.as_str())).collect();
    let mut twice = once.clone();
    twice.extend(once.iter().rev());
    assert_eq!(fixed(&list(&twice), &users(&[])), Ok(list(&once)));
    let many: Vec<(i32, &str, &str)> = (0..20_000).map(|perms| (perms, "auth", "")).collect();
    assert!(fixed(&list(&many), &users(&["me:pw"])).is_ok());
    assert_eq!(fixed(&list(&many), &users(&["me:pw", "too:pw"])), Err(ErrorCode::InvalidAcl));
}

#[test]
fn digests_are_hidden_from_those_without_admin() {
    let me = digest("me:pw");
    let acl = list(&[
        (1, "world", "anyone"),
        (31, "digest", &me),
        (1, "ip", "10.0.0.0/8"),
        (2, "digest", "odd:a:b"),
    ]);
    let options = AuthOptions::default();
    let shown = |identities: &Identities, options: &AuthOptions| {
        redact_for(decoded(&acl), identities, options).into_owned()
    };
    let hidden = list(&[
        (1, "world", "anyone"),
        (31, "digest", "me:x"),
        (1, "ip", "10.0.0.0/8"),
        (2, "digest", "odd:x"),
    ]);
    assert_eq!(shown(&users(&[]), &options), hidden);
    assert_eq!(shown(&users(&["me:pw"]), &options), acl);
    assert_eq!(shown(&users(&[]), &AuthOptions { skip_acl: true, ..options.clone() }), acl);
    assert_eq!(&*redact_for(decoded(OPEN_UNSAFE), &users(&[]), &options), OPEN_UNSAFE);
    assert_eq!(&*redact_for(decoded(READ_UNSAFE), &users(&[]), &options), READ_UNSAFE);
}

#[test]
fn auth_packets_end_as_documented() {
    let plain = AuthOptions::default();
    let ensemble = AuthOptions { ensemble_names: Some(vec!["one".into(), "two".into()]), ..plain.clone() };
    let any_ensemble = AuthOptions { ensemble_names: Some(vec![]), ..plain.clone() };
    let no_digest = AuthOptions { digest_enabled: false, ..plain.clone() };
    let sasl = AuthOptions { sasl_enabled: true, x509_enabled: true, ..plain.clone() };
    use AuthOutcome::{CloseConnection, Failed, Ok};
    for (scheme, data, options, outcome) in [
        (Some("digest"), Some("a:b"), &plain, Ok),
        (Some("digest"), Some(""), &plain, Ok),
        (Some("digest"), None, &plain, Failed),
        (Some("digest"), Some("a:b"), &no_digest, Failed),
        (Some("ip"), Some("1.2.3.4"), &plain, Ok),
        (Some("ip"), None, &plain, Ok),
        (Some("world"), Some("anyone"), &plain, Failed),
        (Some("auth"), Some(""), &plain, Failed),
        (Some("super"), Some(""), &plain, Failed),
        (Some("sasl"), Some("bob"), &plain, Failed),
        (Some("sasl"), Some("bob"), &sasl, Failed),
        (Some("x509"), Some("CN=bob"), &sasl, Failed),
        (Some("nosuch"), Some("x"), &plain, Failed),
        (Some(""), Some("x"), &plain, Failed),
        (None, Some("x"), &plain, Failed),
        (Some("ensemble"), Some("one"), &plain, Failed),
        (Some("ensemble"), Some("two"), &ensemble, Ok),
        (Some("ensemble"), Some(""), &ensemble, Ok),
        (Some("ensemble"), None, &ensemble, Ok),
        (Some("ensemble"), Some("three"), &ensemble, CloseConnection),
        (Some("ensemble"), Some("three"), &any_ensemble, Ok),
    ] {
        let mut identities = users(&[]);
        let data = data.map(str::as_bytes);
        assert_eq!(authenticate(scheme, data, &mut identities, options), outcome, "{scheme:?} {data:?}");
        let added = scheme == Some("digest") && outcome == Ok;
        assert_eq!(identities.iter().count(), 1 + usize::from(added), "{scheme:?} {data:?}");
    }
}

#[test]
fn the_super_digest_adds_both_identities_and_auth_means_the_digest() {
    let options = AuthOptions { super_digest: Some(Secret(digest("super:test"))), ..AuthOptions::default() };
    let mut identities = users(&[]);
    assert!(!identities.is_super());
    authenticate(Some("digest"), Some(b"super:test"), &mut identities, &options);
    assert!(identities.is_super());
    assert_eq!(identities.who_am_i(&options), [("ip", "10.0.0.1"), ("super", ""), ("digest", "super")]);
    let auth = list(&[(31, "auth", "")]);
    let fixed = fix_up_acl(Some(decoded(&auth)), &identities, &options).unwrap();
    assert_eq!(&*fixed, list(&[(31, "digest", &digest("super:test"))]));
    let mut other = users(&[]);
    authenticate(Some("digest"), Some(b"super:wrong"), &mut other, &options);
    assert!(!other.is_super());
}

#[test]
fn identities_merge_and_what_was_taken_along_stays() {
    let mut identities = users(&["a:b", "a:b"]);
    assert_eq!(identities.who_am_i(&AuthOptions::default()), [("ip", "10.0.0.1"), ("digest", "a")]);
    let taken = identities.clone();
    authenticate(Some("digest"), Some(b"c:d"), &mut identities, &AuthOptions::default());
    assert_eq!((taken.iter().count(), identities.iter().count()), (2, 3));
    assert_eq!(from("::ffff:1.2.3.4").who_am_i(&AuthOptions::default()), [("ip", "1.2.3.4")]);
    assert_eq!(from("::1").who_am_i(&AuthOptions::default()), [("ip", "0:0:0:0:0:0:0:1")]);
}

#[test]
fn identities_are_bounded() {
    let options = AuthOptions::default();
    let mut identities = users(&[]);
    for n in 1..IDENTITIES_MAX {
        let data = format!("user{n}:pw");
        assert_eq!(
            authenticate(Some("digest"), Some(data.as_bytes()), &mut identities, &options),
            AuthOutcome::Ok
        );
    }
    assert_eq!(
        authenticate(Some("digest"), Some(b"one:more"), &mut identities, &options),
        AuthOutcome::Failed
    );
    assert_eq!(authenticate(Some("digest"), Some(b"user1:pw"), &mut identities, &options), AuthOutcome::Ok);
    let mut identities = users(&[]);
    let long = vec![b'u'; IDENTITY_BYTES_MAX];
    assert_eq!(authenticate(Some("digest"), Some(&long), &mut identities, &options), AuthOutcome::Failed);
}

#[test]
fn enforced_authentication_wants_one_of_its_schemes() {
    let plain = AuthOptions::default();
    let schemes = |schemes: &[&str]| AuthOptions {
        enforce_schemes: schemes.iter().map(|scheme| scheme.to_string()).collect(),
        ..AuthOptions::default()
    };
    for (identities, options, lacks) in [
        (users(&[]), &plain, false),
        (users(&[]), &schemes(&["digest"]), true),
        (users(&["a:b"]), &schemes(&["digest"]), false),
        (users(&["a:b"]), &schemes(&["sasl"]), true),
        (users(&["a:b"]), &schemes(&["sasl", "digest"]), false),
        (users(&[]), &schemes(&["ip"]), false),
    ] {
        assert_eq!(lacks_enforced_auth(&identities, options), lacks, "{:?}", options.enforce_schemes);
    }
}

#[test]
fn options_come_from_the_configuration() {
    let options = |settings: &[&str]| {
        let mut sets = vec!["dataDir=/nowhere".to_owned()];
        sets.extend(settings.iter().map(|setting| setting.to_string()));
        let sources = config::Sources { sets, ..config::Sources::default() };
        let config = config::load(&sources, &mut |_| Ok(None)).unwrap().config;
        AuthOptions::of_config(&config.auth, config.nodes.skip_acl)
    };
    assert_eq!(options(&[]), AuthOptions::default());
    let given = options(&[
        "skipACL=yes",
        "DigestAuthenticationProvider.superDigest=super:x",
        "DigestAuthenticationProvider.enabled=false",
        "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
        "enforce.auth.enabled=true",
        "enforce.auth.schemes=digest,sasl",
        "superUser=root",
    ]);
    let expected = AuthOptions {
        skip_acl: true,
        digest_enabled: false,
        super_digest: Some(Secret("super:x".into())),
        sasl_enabled: true,
        sasl_super_users: vec!["root".into()],
        enforce_schemes: vec!["digest".into(), "sasl".into()],
        ..AuthOptions::default()
    };
    assert_eq!(given, expected);
    assert_eq!(options(&["sessionRequireClientSASLAuth=true"]).enforce_schemes, ["sasl"]);
}

proptest! {
    /// Whatever bytes decode as a list can be checked, shown and fixed up; what is fixed up is stable.
    #[test]
    fn odd_lists_do_no_harm(entries in prop::collection::vec((any::<i32>(), prop::option::of("(world|auth|ip|digest|sasl|x509|super|.{0,3})"), prop::option::of("(anyone|[0-9.:/]{0,8}|CN=.{0,6}|.{0,6})")), 0..12)) {
        let options = AuthOptions { sasl_enabled: true, x509_enabled: true, ..AuthOptions::default() };
        let sent: Vec<(i32, Text<'_>, Text<'_>)> =
            entries.iter().map(|(perms, scheme, id)| (*perms, scheme.as_deref(), id.as_deref())).collect();
        let bytes = encoded(&sent);
        let identities = users(&["me:pw"]);
        check_acl(decoded(&bytes), Perms::READ, &identities, &options);
        let shown = redact_for(decoded(&bytes), &identities, &options);
        prop_assert_eq!(decoded(&shown).entries().count(), sent.len());
        if let Ok(fixed) = fix_up_acl(Some(decoded(&bytes)), &identities, &options) {
            let again = fix_up_acl(Some(decoded(&fixed)), &identities, &options);
            prop_assert!(again.is_ok_and(|again| again.len() <= fixed.len()));
        }
    }
}
