//! Seeded runs: hostile bytes in every phase, and strict learners that come and go while writes run.

use super::*;
use crate::stdx::rng::Rng;

/// No bytes make the leader panic, or close anybody else's connection.
#[test]
fn hostile_packets_in_every_phase() {
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(options(&[1, 2, 3]), epochs(1, 1), &[(1, 3)]);
        world.writes_epochs = rng.below(4) > 0;
        // Where epochs are not written, server 2 can get no further than its hello.
        let stop = if world.writes_epochs { rng.below(7) } else { rng.below(2) };
        if stop > 0 {
            world.hello(2, 2, 1, kind::FOLLOWER_INFO);
        }
        if stop > 1 {
            world.ack_epoch(2, 1, zxid(1, 3));
        }
        if stop > 2 && !world.is_closed(2) {
            world.ack(2, zxid(2, 0));
        }
        if stop > 3 && world.leader.is_established() {
            world.propose(2);
        }
        world.connect(3);
        let steps = rng.below(5);
        let observer = rng.below(2) == 0;
        let kind = if observer { kind::OBSERVER_INFO } else { kind::FOLLOWER_INFO };
        if steps > 0 {
            let info = LearnerInfo { sid: 3, protocol_version: PROTOCOL_VERSION, config_version: 0 };
            world.say(3, kind, zxid(1, 0), Some(&info.encode()));
        }
        if steps > 1 {
            let end = [zxid(1, 3), zxid(1, 1), zxid(0, 0)][rng.below(3) as usize];
            world.ack_epoch(3, 1, end);
            if rng.below(2) == 0 && world.said.contains(&Output::WantSnapshot) {
                world.leader.snapshot_begin(world.now, zxid(1, 3), &world.recent);
                if rng.below(2) == 0 {
                    world.leader.snapshot_end(world.now);
                }
            }
        }
        if steps > 2 && !world.is_closed(3) {
            world.ack(3, zxid(2, 0));
        }
        for _ in 0..rng.below(20) {
            let mut bytes = random_packet(&mut rng);
            for _ in 0..rng.below(3) * rng.below(2) {
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
            }
            for piece in bytes.chunks(1 + rng.below(40) as usize) {
                world.send(3, piece);
            }
            // Never so long that server 2 is overdue itself.
            world.pass(u32::from(world.now < Instant::from_ms(1_000_400) && rng.below(4) == 0), &[2]);
        }
        assert!(!world.is_closed(2) || world.resigned().is_some(), "seed {seed}");
    }
}

fn random_packet(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.below(22) as i32;
    let epoch = [0, 1, 2, 3, 0x7fff_ffff, u32::MAX][rng.below(6) as usize];
    let counter = [0, 1, 2, 3, 4, u32::MAX][rng.below(6) as usize];
    let length = [0, 4, 8, 9, 12, 16, 20, 24, 100][rng.below(9) as usize];
    let data: Vec<u8> = (0..length).map(|_| [0, 0, 1, 5, 3, 255][rng.below(6) as usize]).collect();
    let data = (rng.below(5) > 0).then_some(&data[..]);
    packet(kind, zxid(epoch, counter), data)
}

/// A learner that fails on whatever a learner of Apache ZooKeeper fails on.
#[derive(Debug)]
struct Strict {
    conn: u32,
    sid: i64,
    is_observer: bool,
    /// What it has been told, in order; all of it durable.
    history: Vec<Zxid>,
    committed: usize,
    accepted: u32,
    current: u32,
    stage: StrictStage,
    pending: Vec<u8>,
    /// Acks it owes.
    acks: VecDeque<Zxid>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StrictStage {
    Away,
    Joining,
    NewLeader,
    UpToDate,
}

const SIGNATURE: &[u8] = b"\0\0\0\x0aBenWasHere";

impl Strict {
    fn last(&self) -> Zxid {
        self.history.last().copied().unwrap_or(Zxid::ZERO)
    }

    fn append(&mut self, zxid: Zxid) {
        assert!(crate::txnlog::follows(self.last(), zxid), "{zxid} after {} at {}", self.last(), self.sid);
        self.history.push(zxid);
    }

    /// Takes what lies in its inbox.
    fn receive(&mut self, world: &mut World) {
        let conn = world.conn(self.conn);
        self.pending.extend(world.inboxes.remove(&conn).unwrap_or_default());
        while self.stage != StrictStage::Away {
            let bytes = std::mem::take(&mut self.pending);
            let Ok(Some((packet, length))) = QuorumPacket::decode(&bytes, 1 << 20) else {
                self.pending = bytes;
                return;
            };
            let mut used = length;
            let proposed = packet.data == Some(&entry(packet.zxid)[..]);
            match (self.stage, packet.kind) {
                (StrictStage::Joining, kind::LEADER_INFO) => {
                    let epoch = packet.zxid.epoch().0;
                    let current = if epoch > self.accepted { self.current as i32 } else { -1 };
                    self.accepted = epoch;
                    let last = self.last();
                    world.ack_epoch(self.conn, current, last);
                }
                (StrictStage::Joining, kind::DIFF) => {}
                (StrictStage::Joining, kind::SNAP) => {
                    // The stand-in for a tree: the zxids it holds the effects of.
                    let Some(end) = bytes.windows(SIGNATURE.len()).position(|window| window == SIGNATURE)
                    else {
                        self.pending = bytes;
                        return;
                    };
                    let body = &bytes[used..end];
                    self.history = body
                        .chunks(8)
                        .map(|zxid| Zxid(i64::from_be_bytes(zxid.try_into().unwrap())))
                        .collect();
                    assert_eq!(self.last(), packet.zxid);
                    self.committed = self.history.len();
                    used = end + SIGNATURE.len();
                }
                (StrictStage::Joining, kind::PROPOSAL) => {
                    assert!(proposed);
                    self.append(packet.zxid);
                }
                (StrictStage::Joining, kind::COMMIT) => assert_eq!(self.last(), packet.zxid),
                (StrictStage::Joining, kind::NEW_LEADER) => {
                    self.current = packet.zxid.epoch().0;
                    self.stage = StrictStage::NewLeader;
                    self.acks.push_back(packet.zxid);
                }
                (StrictStage::NewLeader, kind::PING) => {}
                (StrictStage::NewLeader, kind::UP_TO_DATE) => {
                    self.stage = StrictStage::UpToDate;
                    self.committed = self.history.len();
                    assert!(self.last() <= world.leader.zxid_committed());
                    self.acks.push_back(Zxid::new(world.leader.epoch(), 0));
                }
                (StrictStage::UpToDate, kind::PING) => {
                    world.say(self.conn, kind::PING, packet.zxid, Some(b""));
                }
                (StrictStage::UpToDate, kind::PROPOSAL) if !self.is_observer => {
                    assert!(proposed);
                    self.append(packet.zxid);
                    self.acks.push_back(packet.zxid);
                }
                (StrictStage::UpToDate, kind::COMMIT) if !self.is_observer => {
                    assert_eq!(
                        self.history.get(self.committed),
                        Some(&packet.zxid),
                        "head of what is pending"
                    );
                    self.committed += 1;
                }
                (StrictStage::UpToDate, kind::INFORM) if self.is_observer => {
                    assert!(proposed);
                    self.append(packet.zxid);
                    self.committed += 1;
                }
                (stage, kind) => panic!("a packet of type {kind} at {stage:?} for {}", self.sid),
            }
            // Nothing of ours was put back meanwhile.
            assert!(self.pending.is_empty());
            self.pending = bytes[used..].to_vec();
            if self.pending.is_empty() {
                return;
            }
        }
    }

    fn connect(&mut self, world: &mut World, conn: u32) {
        self.conn = conn;
        self.stage = StrictStage::Joining;
        self.pending.clear();
        self.acks.clear();
        let kind = if self.is_observer { kind::OBSERVER_INFO } else { kind::FOLLOWER_INFO };
        world.hello(conn, self.sid, self.accepted, kind);
    }

    fn leave(&mut self, world: &mut World, rng: &mut Rng) {
        if self.stage == StrictStage::Away {
            return;
        }
        world.event(self.conn, PeerEvent::Closed);
        self.stage = StrictStage::Away;
        // What was not acknowledged may be lost with its power.
        let keep =
            self.committed.max(self.history.len() - self.acks.iter().filter(|z| z.counter() > 0).count());
        if rng.below(2) == 0 {
            self.history.truncate(keep);
        }
    }
}

#[test]
fn strict_learners_come_and_go_while_writes_run() {
    let mut commits = 0;
    let mut snapshots = 0;
    for seed in 0..150 {
        let mut rng = Rng::new(seed);
        let mut options = options(&[1, 2, 3, 4, 5]);
        options.learner_queue_bytes_max = 16 << 10;
        let mut world = World::new(options, epochs(1, 1), &[(1, 6)]);
        let ring = if rng.below(2) == 0 { 8 } else { 400 };
        let mut small = Recent::new(ring, 1 << 20);
        for counter in 1..=6 {
            small.push(zxid(1, counter), entry(zxid(1, counter)));
        }
        world.recent = small;
        // The whole history, as the tree has it.
        let mut history: Vec<Zxid> = (1..=6).map(|counter| zxid(1, counter)).collect();
        let mut learners: Vec<Strict> = (2..=7)
            .map(|sid| {
                let held = rng.below(7) as usize;
                Strict {
                    conn: 0,
                    sid,
                    is_observer: sid == 7,
                    history: history[..held].to_vec(),
                    committed: 0,
                    accepted: 1,
                    current: 1,
                    stage: StrictStage::Away,
                    pending: Vec::new(),
                    acks: VecDeque::new(),
                }
            })
            .collect();
        let mut conn = 100;
        let mut durable = zxid(1, 6);
        for _ in 0..600 {
            if world.resigned().is_some() {
                break;
            }
            let who = rng.below(learners.len() as u64) as usize;
            match rng.below(20) {
                0..3 if learners[who].stage == StrictStage::Away => {
                    conn += 1;
                    learners[who].connect(&mut world, conn);
                }
                3 if rng.below(12) == 0 => {
                    // Never so many that the reign ends, mostly.
                    let away = learners[..4].iter().filter(|l| l.stage == StrictStage::Away).count();
                    if away < 2 || rng.below(10) == 0 || who >= 4 {
                        learners[who].leave(&mut world, &mut rng);
                    }
                }
                4..8 if world.leader.is_established() && world.leader.outstanding() < 12 => {
                    let before = world.leader.zxid_proposed();
                    world.propose(1 + rng.below(3) as u32);
                    history.extend(world.recent.after(before).unwrap().map(|(zxid, _)| zxid));
                }
                8..10 if world.leader.zxid_proposed() > durable => {
                    durable = world.leader.zxid_proposed();
                    world.durable(durable);
                }
                10 if world.said.contains(&Output::WantSnapshot) && !world.leader.snapshot_runs => {
                    world.said.retain(|output| *output != Output::WantSnapshot);
                    snapshots += 1;
                    let end = world.leader.zxid_committed().max(zxid(1, 1 + rng.below(6) as u32));
                    world.leader.snapshot_begin(world.now, end, &world.recent);
                    for zxid in history.iter().take_while(|&&zxid| zxid <= end) {
                        world.leader.snapshot_part(&Bytes::copy_from_slice(&zxid.0.to_be_bytes()));
                    }
                }
                11 if world.leader.snapshot_runs => world.leader.snapshot_end(world.now),
                12 => {
                    world.leader.prove();
                    world.leader.sync(world.conn(learners[who].conn));
                    world.turn();
                    // Syncs are not what the strict learners watch.
                    let conn = world.conn(learners[who].conn);
                    if let Some(inbox) = world.inboxes.get_mut(&conn) {
                        strip_syncs(inbox);
                    }
                }
                13 => world.pass(rng.below(2) as u32, &[]),
                _ => {
                    let learner = &mut learners[who];
                    learner.receive(&mut world);
                    for _ in 0..rng.below(4) {
                        let Some(zxid) = learner.acks.pop_front() else { break };
                        world.ack(learner.conn, zxid);
                    }
                }
            }
            world.turn();
            for conn in world.inboxes.values_mut() {
                strip_syncs(conn);
            }
            for learner in &mut learners {
                if learner.stage != StrictStage::Away && world.is_closed(learner.conn) {
                    learner.stage = StrictStage::Away;
                }
                // One history, and nothing served that is not committed.
                let known = &learner.history[..learner.committed];
                assert!(history.starts_with(known), "seed {seed}");
                assert!(
                    known.last().is_none_or(|&last| last <= world.leader.zxid_committed().max(zxid(1, 6))),
                    "seed {seed}"
                );
            }
            // What is committed is durable here and at a quorum.
            let committed = world.leader.zxid_committed();
            if world.leader.is_established() {
                assert!(committed <= durable, "seed {seed}");
                let holders = learners[..4].iter().filter(|learner| learner.history.contains(&committed));
                assert!(holders.count() >= 2, "seed {seed}: {committed}");
            }
        }
        commits += world.leader.counters().commits;
    }
    assert!(commits > 1000 && snapshots > 50, "{commits} commits, {snapshots} snapshots");
}

/// Takes `SYNC` packets out of whole packets; a snapshot is left alone.
fn strip_syncs(bytes: &mut Vec<u8>) {
    let sync = packet(kind::SYNC, Zxid::ZERO, None);
    while let Some(at) = bytes.windows(sync.len()).position(|window| window == sync) {
        bytes.drain(at..at + sync.len());
    }
}
