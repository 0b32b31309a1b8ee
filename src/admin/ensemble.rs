//! What members of an ensemble answer beyond what every server does: `leader`, `voting_view`, `zabstate`.
//!
//! Addresses are those of the configuration the server was started with.
//! Source: ZooKeeper `Commands.LeaderCommand`, `.VotingViewCommand`, `.ZabStateCommand`, `MultipleAddresses`.

use super::command::Members;
use super::json::Json;
use crate::config::{Ensemble, ListenAddress, Member, MemberAddress, Role};
use crate::types::ServerId;
use crate::words::{EnsembleReport, Mode, Report};

pub(super) fn leader(members: &mut Members, mode: Mode, report: &EnsembleReport, ensemble: &Ensemble) {
    let id = report.leader_id.and_then(|id| u8::try_from(id).ok()).map(ServerId);
    let member = id.and_then(|id| ensemble.membership.member(id));
    let hosts = member.map(|member| {
        member.addresses.iter().map(|address| address.host.as_str()).collect::<Vec<_>>().join("|")
    });
    members.add("is_leader", mode == Mode::Leader);
    members.add("leader_id", report.leader_id.unwrap_or(-1));
    members.add("leader_ip", hosts.unwrap_or_default());
}

/// Voters alone; empty without an ensemble.
pub(super) fn voting_view(ensemble: Option<&Ensemble>) -> Json {
    let mut view = Members::default();
    let voters = ensemble
        .into_iter()
        .flat_map(|ensemble| ensemble.membership.voters().filter_map(|id| ensemble.membership.member(id)));
    for member in voters {
        let mut shown = Members::default();
        shown.add("server_addresses", places(member, |address| address.quorum_port));
        shown.add("election_addresses", places(member, |address| address.election_port));
        shown.add("client_address", client_address(member));
        let is_participant = member.role == Role::Participant;
        shown.add("learner_type", if is_participant { "participant" } else { "observer" });
        view.add(&member.id.0.to_string(), Json::Object(shown.0));
    }
    Json::Object(view.0)
}

pub(super) fn zab_state(
    members: &mut Members,
    report: &Report,
    member: &EnsembleReport,
    ensemble: &Ensemble,
) {
    let own = ensemble.own();
    members.add("myid", i64::from(ensemble.me.0));
    members.add("is_leader", report.mode == Mode::Leader);
    members.add("quorum_address", addresses(own, |address| address.quorum_port));
    members.add("election_address", addresses(own, |address| address.election_port));
    members.add("client_address", client_address(own));
    members.add("voting", ensemble.membership.is_voter(ensemble.me));
    members.add("last_zxid", report.zxid.to_string());
    members.add("zab_epoch", report.zxid.epoch().0);
    members.add("zab_counter", report.zxid.counter());
    members.add("zabstate", member.zab_state());
}

/// ZooKeeper tries which addresses can be reached; here all of them count as that.
fn addresses(member: &Member, port: impl Fn(&MemberAddress) -> u16 + Copy) -> Json {
    let all = places(member, port);
    let first = member.addresses.first().map(|address| place(&address.host, port(address)));
    let one = Json::from(first.unwrap_or_default());
    let ports = member.addresses.iter().map(|address| u32::from(port(address)));
    Json::object([
        ("empty", Json::from(member.addresses.is_empty())),
        ("all_addresses", all.clone()),
        ("all_reachable_addresses", all.clone()),
        ("one", one.clone()),
        ("reachable_address", one.clone()),
        ("wildcard_addresses", ports.clone().map(|port| place("0.0.0.0", port as u16)).collect()),
        ("all_ports", ports.collect()),
        ("all_host_strings", member.addresses.iter().map(|address| address.host.as_str()).collect()),
        ("all_reachable_addresses_or_all", all),
        ("reachable_or_one", one),
    ])
}

fn places(member: &Member, port: impl Fn(&MemberAddress) -> u16) -> Json {
    member.addresses.iter().map(|address| place(&address.host, port(address))).collect()
}

fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn client_address(member: &Member) -> String {
    let of = |address: &ListenAddress| place(address.host.as_deref().unwrap_or("0.0.0.0"), address.port);
    member.client.as_ref().map(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Command, Findings, body};
    use crate::config::{Sources, Start, load};
    use crate::types::Zxid;
    use crate::words::{LeaderReport, PeerPhase, PeerRole, ServerFacts};

    #[test]
    fn a_member_tells_of_its_ensemble() {
        let text = "dataDir=/d\ninitLimit=10\nsyncLimit=5\nserver.1=h1:2888:3888;2181\nserver.2=h2:2888:3888\n\
                    server.3=[::1]:2888:3888\nserver.4=h4:2888:3888:observer\n";
        let start = Start::File { name: "zoo.cfg".into(), text: text.as_bytes().to_vec() };
        let sources = Sources { start, ..Sources::default() };
        let config =
            load(&sources, &mut |path: &std::path::Path| Ok(path.ends_with("myid").then(|| b"1".to_vec())));
        let config = config.unwrap().config;
        let member = EnsembleReport {
            role: PeerRole::Leading,
            phase: PeerPhase::Broadcast,
            voters: 3,
            leader_id: Some(3),
            leader: Some(LeaderReport { synced_observers: 1, ..LeaderReport::default() }),
            ..EnsembleReport::default()
        };
        let zxid = Zxid(0x2_0000_0005);
        let report = Report { mode: Mode::Leader, zxid, ensemble: Some(member.into()), ..Report::default() };
        let facts = ServerFacts::default();
        let say = |command| {
            let findings = Findings { facts: &facts, config: &config, report: &report, last_snapshot: None };
            body(command, &findings).print()
        };
        let leader = say(Command::Leader);
        assert!(
            leader.contains("\"is_leader\" : true,\n  \"leader_id\" : 3,\n  \"leader_ip\" : \"::1\""),
            "{leader}"
        );
        let view = say(Command::VotingView);
        assert!(
            view.contains("\"server_addresses\" : [ \"h1:2888\" ]") && view.contains("\"0.0.0.0:2181\""),
            "{view}"
        );
        assert!(view.contains("[ \"[::1]:3888\" ]") && !view.contains("h4"), "{view}");
        let state = say(Command::ZabState);
        for part in [
            "\"myid\" : 1",
            "\"voting\" : true",
            "\"last_zxid\" : \"0x200000005\"",
            "\"zab_epoch\" : 2",
            "\"zab_counter\" : 5",
            "\"zabstate\" : \"broadcast\"",
            "\"all_ports\" : [ 3888 ]",
        ] {
            assert!(state.contains(part), "{part} is not in {state}");
        }
        assert!(say(Command::ServerStats).contains("\"proposal_stats\" : {\n    \"last_buffer_size\" : -1"));
        assert!(say(Command::Observers).contains("\"synced_observers\" : 1"));
        let monitor = say(Command::Monitor);
        assert!(
            monitor.contains("\"peer_state\" : \"leading - broadcast\"")
                && monitor.contains("\"quorum_size\" : 3")
        );
    }
}
