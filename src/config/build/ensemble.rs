//! The `server.N`, `group.N` and `weight.N` lines, and what follows from them: alone, or a member of an ensemble.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::sources::{given_twice, is_server};
use super::*;

/// The lines, read one by one.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Participants first, then by id.
    pub members: Vec<Member>,
    groups: BTreeMap<i64, Vec<ServerId>>,
    weights: BTreeMap<ServerId, u32>,
    version: i64,
    dynamic_file: Option<PathBuf>,
    file: Option<PathBuf>,
    /// Of the first member's line, or where one would stand.
    origin: Option<Origin>,
}

/// Reads the lines from the file itself or from the dynamic file it names; never from both.
pub(super) fn lines(
    values: &Values,
    sources: &Sources,
    read: &mut ReadFile<'_>,
) -> Result<Lines, ConfigError> {
    let mut written: Vec<(String, Written)> = ["server.", "group.", "weight."]
        .into_iter()
        .flat_map(|family| values.family(family))
        .filter(|(key, _)| is_membership(key))
        .map(|(key, written)| (key.to_owned(), written.clone()))
        .collect();
    let mut lines = Lines::default();
    if let Start::File { name, .. } = &sources.start {
        lines.file = Some(PathBuf::from(name));
    }
    if let Some(dynamic) = values.text("dynamicConfigFile") {
        if let Some((key, written)) = written.first() {
            return Err(ConfigError::Contradiction {
                origin: written.origin.clone(),
                reason: format!("{key} has to stand in the file dynamicConfigFile names, not beside it"),
            });
        }
        let path = path_of(sources, Path::new(dynamic));
        written = of_dynamic(values, &path, read)?;
        lines.version = version_of(&path);
        lines.dynamic_file = Some(path);
        lines.origin = Some(values.origin("dynamicConfigFile"));
    }
    for (key, Written { value, origin }) in written {
        lines.take(key, value, origin)?;
    }
    lines.members.sort_by_key(|member| (member.role == Role::Observer, member.id));
    Ok(lines)
}

fn is_membership(key: &str) -> bool {
    is_server(key) || keys::find(key).is_some_and(|key| matches!(key.name, "group.*" | "weight.*"))
}

/// Relative to the file that names it, unless that file has no directory of its own.
fn path_of(sources: &Sources, path: &Path) -> PathBuf {
    match &sources.start {
        Start::File { name, .. } if path.is_relative() => {
            Path::new(name).parent().unwrap_or(Path::new("")).join(path)
        }
        _ => path.to_owned(),
    }
}

/// What follows the last dot of the name, in hexadecimal; zero for anything else.
/// Source: ZooKeeper `QuorumPeerConfig.getVersionFromFilename`.
fn version_of(path: &Path) -> i64 {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.rsplit_once('.').and_then(|(_, suffix)| i64::from_str_radix(suffix, 16).ok()).unwrap_or(0)
}

fn of_dynamic(
    values: &Values,
    path: &Path,
    read: &mut ReadFile<'_>,
) -> Result<Vec<(String, Written)>, ConfigError> {
    let file = path.display().to_string();
    let text = match read(path) {
        Ok(Some(text)) => text,
        Ok(None) => return Err(values.wrong("dynamicConfigFile", format!("a file; there is no {file}"))),
        Err(reason) => return Err(ConfigError::Read { file, reason }),
    };
    if text.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { file, bytes: text.len(), bytes_max: CONFIG_BYTES_MAX });
    }
    let origin = |line| Origin::Line { file: file.clone(), line };
    let properties =
        properties::parse(&text).map_err(|bad| ConfigError::Escape { origin: origin(bad.line) })?;
    // The last line of a key counts, as everywhere.
    let mut lines: BTreeMap<String, Written> = BTreeMap::new();
    for property in properties {
        let origin = origin(property.line);
        let value = property.value;
        if !is_membership(&property.key) {
            return Err(ConfigError::Value {
                origin,
                key: property.key,
                value,
                expected: "only server.N, group.N and weight.N in a dynamic file".into(),
            });
        }
        if let Some(before) = lines.get(&property.key)
            && let Origin::Line { line, .. } = before.origin
            && before.value != value
            && is_server(&property.key)
        {
            return Err(given_twice(&origin, &property.key, line));
        }
        lines.insert(property.key, Written { value, origin });
    }
    Ok(lines.into_iter().collect())
}

impl Lines {
    fn take(&mut self, key: String, value: String, origin: Origin) -> Result<(), ConfigError> {
        let wrong = |expected: &str| ConfigError::Value {
            origin: origin.clone(),
            key: key.clone(),
            value: value.clone(),
            expected: expected.to_owned(),
        };
        let digits = key.split_once('.').map_or("", |(_, digits)| digits);
        if is_server(&key) {
            let member = Member::parse(&key, &value).map_err(|expected| wrong(&expected))?;
            if self.members.iter().any(|other| other.id == member.id) {
                let reason = format!("server {} is given twice: expected each id once", member.id.0);
                return Err(ConfigError::Contradiction { origin, reason });
            }
            self.members.push(member);
            self.origin.get_or_insert(origin);
        } else if key.starts_with("group.") {
            let group = digits.parse().map_err(|_| wrong("a number after the dot of the key"))?;
            let ids = value.split(':').map(|part| server_id(part.trim())).collect::<Option<Vec<_>>>();
            let ids = ids.ok_or_else(|| wrong("server ids from 1 to 255 with colons between"))?;
            self.groups.insert(group, ids);
        } else {
            let id = server_id(digits)
                .ok_or_else(|| wrong("a server id from 1 to 255 after the dot of the key"))?;
            let weight = value.parse().map_err(|_| wrong("a weight from 0 to 4294967295"))?;
            self.weights.insert(id, weight);
        }
        Ok(())
    }
}

fn server_id(text: &str) -> Option<ServerId> {
    text.parse::<u8>().ok().filter(|id| *id > 0).map(ServerId)
}

/// Decides between standing alone and an ensemble, and checks what an ensemble needs. Source: ZooKeeper
/// `QuorumPeerConfig#parseDynamicConfig`, `#setupQuorumPeerConfig`, `#checkValidity`, `QuorumPeer#start`.
pub(super) fn ensemble(
    values: &Values,
    lines: &Lines,
    data_dir: &Path,
    my_id: Option<u8>,
    notices: &mut Vec<Notice>,
) -> Result<Option<Ensemble>, ConfigError> {
    let origin = lines.origin.clone().unwrap_or_else(|| values.origin("standaloneEnabled"));
    let contradiction = |reason: String| ConfigError::Contradiction { origin: origin.clone(), reason };
    let voters = lines.members.iter().filter(|member| member.role == Role::Participant).count();
    let observers = lines.members.len() - voters;
    let standalone_enabled = values.flag("standaloneEnabled");
    if voters == 0 && observers > 0 {
        return Err(contradiction(format!(
            "{observers} observers and no participant: expected at least one participant for them to follow"
        )));
    }
    if voters == 0 && !standalone_enabled {
        let reason = "standaloneEnabled=false makes this a member of an ensemble, which needs at least one participant";
        return Err(ConfigError::Missing { origin, key: "server.N", reason });
    }
    if voters == 1 && standalone_enabled && observers > 0 {
        return Err(contradiction(format!(
            "one participant and {observers} observers: expected two participants or more, or standaloneEnabled=false on every server"
        )));
    }
    let observes = values.is_given("peerType") && values.choice("peerType") == "observer";
    if voters == 0 {
        if observes {
            return Err(
                values.wrong("peerType", "participant where there is no server.N line to observe".into())
            );
        }
        return Ok(None);
    }
    if voters == 1 && standalone_enabled {
        notices.push(Notice::OneServer);
        if observes {
            notices.push(Notice::PeerType { origin: values.origin("peerType"), role: "observer".into() });
        }
        return Ok(None);
    }
    // They have an effect here.
    notices.retain(|notice| !matches!(notice, Notice::EnsembleOnly { .. }));
    match voters {
        0..=2 => notices.push(Notice::FewServers { voters }),
        _ if voters % 2 == 0 => notices.push(Notice::EvenServers { voters }),
        _ => {}
    }
    let me = own_id(lines, data_dir, my_id, &contradiction)?;
    let own = lines.members.iter().find(|member| member.id == me).expect("found just now");
    if values.is_given("peerType") && observes != (own.role == Role::Observer) {
        let role = values.choice("peerType").to_owned();
        notices.push(Notice::PeerType { origin: values.origin("peerType"), role });
    }
    if values.flag("extendedTypesEnabled") && me.0 == u8::MAX {
        let reason = "extendedTypesEnabled=true needs server ids below 255".to_owned();
        return Err(ConfigError::Contradiction { origin: values.origin("extendedTypesEnabled"), reason });
    }
    check_addresses(lines, values.flag("multiAddress.enabled"), &contradiction)?;
    let membership =
        Membership::new(lines.version, lines.members.clone(), lines.groups.clone(), lines.weights.clone())
            .map_err(|error| contradiction(error.to_string()))?;
    let limit = |key: &'static str, reason| match values.given_number(key) {
        Some(ticks) => Ok(ticks as u32),
        None => Err(ConfigError::Missing { origin: values.home.clone(), key, reason }),
    };
    let init_limit_ticks =
        limit("initLimit", "an ensemble needs it: ticks that finding and following a leader may take")?;
    let sync_limit_ticks = limit("syncLimit", "an ensemble needs it: ticks that a server may be silent")?;
    note_missing_features(values, notices);
    let tries = values.number::<u32>("electionPortBindRetry");
    let of_tick = values.number::<u32>("tickTime").saturating_mul(sync_limit_ticks);
    let observer_sync = match values.is_given("observer.syncEnabled") {
        true => values.flag("observer.syncEnabled"),
        false => values.flag("syncEnabled"),
    };
    Ok(Some(Ensemble {
        me,
        membership,
        file: lines.file.clone(),
        dynamic_file: lines.dynamic_file.clone(),
        standalone_enabled,
        init_limit_ticks,
        sync_limit_ticks,
        connect_limit_ticks: match values.number("connectToLearnerMasterLimit") {
            0 => init_limit_ticks,
            ticks => ticks,
        },
        listen_on_all_ips: values.flag("quorumListenOnAllIPs"),
        bind_tries: Some(tries).filter(|tries| *tries > 0),
        waits_for_names: tries == 0 || !values.is_given("electionPortBindRetry"),
        connect_timeout_ms: values.number("cnxTimeout"),
        initial_timeout_ms: values.optional("quorumCnxnTimeoutMs").filter(|ms| *ms > 0).unwrap_or(of_tick),
        keep_alive: values.flag("tcpKeepAlive"),
        notification_min_ms: values.number("fastleader.minNotificationInterval"),
        notification_max_ms: values.number("fastleader.maxNotificationInterval"),
        snap_syncs_max: values.number("leader.maxConcurrentSnapSyncs"),
        diff_syncs_max: values.number("leader.maxConcurrentDiffSyncs"),
        commit_log_count: values.number("commitLogCount"),
        snapshot_size_factor: values.real("snapshotSizeFactor"),
        observer_sync,
        observer_master_port: Some(values.number("observerMasterPort")).filter(|port| *port > 0),
        observer_delay_ms: values.number("observer.election.DelayMs"),
        observer_reconnect_delay_ms: values.number("observer.reconnectDelayMs"),
        leader_serves: values.flag("leaderServes"),
        multi_address: values.flag("multiAddress.enabled"),
        tls: peer_keys(values, notices)?,
    }))
}

/// Features an ensemble may have and this release has not: what is asked for and does not come is told.
fn note_missing_features(values: &Values, notices: &mut Vec<Notice>) {
    if values.number::<u16>("observerMasterPort") == 0 {
        return;
    }
    let mut names = vec!["observerMasterPort".to_owned()];
    let told = notices.iter_mut().find_map(|notice| match notice {
        Notice::NotAvailable { names } => Some(names),
        _ => None,
    });
    match told {
        Some(told) => told.append(&mut names),
        None => notices.push(Notice::NotAvailable { names }),
    }
}

fn peer_keys(values: &Values, notices: &mut Vec<Notice>) -> Result<Option<PeerKeys>, ConfigError> {
    let (dials, accepts_plain) = (values.flag("sslQuorum"), values.flag("portUnification"));
    if !dials && !accepts_plain {
        return Ok(None);
    }
    let what = if dials { "sslQuorum" } else { "portUnification" };
    let keys = tls::tls(values, tls::QUORUM_PREFIX, what, notices)?;
    let cert_reload = values.flag("sslQuorumReloadCertFiles");
    Ok(Some(PeerKeys { keys, dials, accepts_plain, cert_reload }))
}

fn own_id(
    lines: &Lines,
    data_dir: &Path,
    my_id: Option<u8>,
    contradiction: &dyn Fn(String) -> ConfigError,
) -> Result<ServerId, ConfigError> {
    let file = data_dir.join("myid").display().to_string();
    let Some(id) = my_id else {
        let reason = "no such file; a member of an ensemble has its own id there, from 1 to 255".to_owned();
        return Err(ConfigError::Read { file, reason });
    };
    if lines.members.iter().any(|member| member.id == ServerId(id)) {
        return Ok(ServerId(id));
    }
    let ids: Vec<String> = lines.members.iter().map(|member| member.id.0.to_string()).collect();
    Err(contradiction(format!(
        "server.{id} is missing: {file} says that this is server {id}, the lines are of {}",
        ids.join(", ")
    )))
}

/// No two ports of peers are the same.
fn check_addresses(
    lines: &Lines,
    multi_address: bool,
    contradiction: &dyn Fn(String) -> ConfigError,
) -> Result<(), ConfigError> {
    let mut seen: BTreeMap<(String, u16), ServerId> = BTreeMap::new();
    for member in &lines.members {
        if member.addresses.len() > 1 && !multi_address {
            return Err(contradiction(format!(
                "server {} has {} addresses: several need multiAddress.enabled=true",
                member.id.0,
                member.addresses.len()
            )));
        }
        for address in &member.addresses {
            for port in [address.quorum_port, address.election_port] {
                let host = address.host.to_ascii_lowercase();
                let shown = format!("{}:{port}", address.host);
                if let Some(other) = seen.insert((host, port), member.id) {
                    return Err(contradiction(match other == member.id {
                        true => format!("server {} has {shown} twice", other.0),
                        false => format!("servers {} and {} both have {shown}", other.0, member.id.0),
                    }));
                }
            }
        }
    }
    Ok(())
}

/// Clients do not come in where the own peers do.
pub(super) fn check_own_ports(
    values: &Values,
    ensemble: &Ensemble,
    client: Option<&ListenAddress>,
) -> Result<(), ConfigError> {
    let Some(client) = client else { return Ok(()) };
    for address in &ensemble.own().addresses {
        let same_host = ensemble.listen_on_all_ips
            || client.host.as_ref().is_none_or(|host| host.eq_ignore_ascii_case(&address.host));
        if same_host && [address.quorum_port, address.election_port].contains(&client.port) {
            let reason = format!(
                "port {} is for clients and for the servers of server.{}",
                client.port, ensemble.me.0
            );
            return Err(ConfigError::Contradiction { origin: values.origin("clientPort"), reason });
        }
    }
    Ok(())
}
