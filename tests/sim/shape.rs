//! What kind of world a seed makes: sizes, limits, load, and which faults there are at all and how often (swarm).

use ringkeeper::stdx::rng::Rng;

/// Milliseconds between two of a kind on average; zero: there are none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// The machine loses power: what was not synced may be gone.
    pub power_cut: u64,
    /// The process dies; what it wrote stays.
    pub kill: u64,
    /// The process stands still for a while.
    pub pause: u64,
    /// A client's connection breaks, at any byte.
    pub cut: u64,
    /// The disk takes its time.
    pub stall: u64,
    /// There is no space for a while.
    pub full: u64,
    /// A log write fails.
    pub write_error: u64,
    /// Bytes change on the medium, or a write went astray, noticed at the next start.
    pub rot: u64,
    /// A server's wall clock jumps.
    pub wall_jump: u64,
    /// A client stops reading, or goes silent without a word.
    pub silence: u64,
    /// Servers cannot reach each other for a while: one apart, halves, or one direction only.
    pub partition: u64,
    /// A connection between servers breaks, at any byte.
    pub peer_cut: u64,
}

/// Names of the faults, as `--without` takes them.
pub const FAULTS: [&str; 12] = [
    "power-cut",
    "kill",
    "pause",
    "cut",
    "stall",
    "full",
    "write-error",
    "rot",
    "wall-jump",
    "silence",
    "partition",
    "peer-cut",
];

impl Faults {
    pub fn by_name(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "power-cut" => &mut self.power_cut,
            "kill" => &mut self.kill,
            "pause" => &mut self.pause,
            "cut" => &mut self.cut,
            "stall" => &mut self.stall,
            "full" => &mut self.full,
            "write-error" => &mut self.write_error,
            "rot" => &mut self.rot,
            "wall-jump" => &mut self.wall_jump,
            "silence" => &mut self.silence,
            "partition" => &mut self.partition,
            "peer-cut" => &mut self.peer_cut,
            _ => return None,
        })
    }
}

/// Moments in which clients ask for something, over all clients and all of a run.
const MOMENTS_MAX: u64 = 8000;

/// A seed's world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    pub seed: u64,
    pub voters: usize,
    pub observers: usize,
    pub fronts: usize,
    pub clients: usize,
    /// Virtual time with load and faults.
    pub duration_ms: u64,
    pub tick_ms: u64,
    pub session_timeout_ms: i32,
    pub sector_bytes: usize,
    pub segment_bytes: u64,
    pub entry_bytes_max: usize,
    pub batch_bytes_max: usize,
    pub in_flight_max: usize,
    pub snap_count: u64,
    pub snap_retain: usize,
    pub recycles: bool,
    /// Room of the queues between cores.
    pub link_messages: usize,
    /// `globalOutstandingLimit`.
    pub outstanding_max: u32,
    /// Bytes under way to a client that does not read.
    pub window_bytes: usize,
    /// Greatest delays, in microseconds.
    pub net_delay_us: u64,
    pub disk_delay_us: u64,
    pub turn_delay_us: u64,
    /// Requests a client has under way at most.
    pub pipelined: usize,
    pub think_us: u64,
    /// Nodes beyond which clients rather delete.
    pub nodes_max: usize,
    /// Names at each level; few make contention.
    pub names: u64,
    /// Parts in a hundred of requests that write.
    pub writes: u64,
    pub sweeps: bool,
    pub leader_serves: bool,
    /// `leader.maxTimeToWaitForEpoch`.
    pub epoch_wait_ms: Option<u64>,
    /// Bytes of entries kept for learners that come back; beyond, they get a snapshot.
    pub recent_bytes_max: usize,
    pub faults: Faults,
}

impl Shape {
    pub fn servers(&self) -> usize {
        self.voters + self.observers
    }

    pub fn draw(seed: u64) -> Shape {
        let mut rng = Rng::new(seed ^ 0x5368_6170_6500);
        let rng = &mut rng;
        let pick = |rng: &mut Rng, from: &[u64]| from[rng.below(from.len() as u64) as usize];
        // Few kinds at once: such runs go deeper.
        let kinds = pick(rng, &[0, 1, 1, 2, 2, 3, 4, 12]);
        let mut faults = Faults::default();
        for _ in 0..kinds {
            let name = FAULTS[rng.below(FAULTS.len() as u64) as usize];
            *faults.by_name(name).expect("a name of the list") = pick(rng, &[300, 1000, 3000, 8000]);
        }
        if faults.rot > 0 && faults.power_cut == 0 {
            // It is found at a start only.
            faults.power_cut = 2000;
        }
        let tick_ms = pick(rng, &[100, 500, 1000, 2000]);
        let voters = pick(rng, &[1, 1, 1, 2, 3, 3, 3, 3, 4, 5, 5, 7]) as usize;
        let observers = if voters > 1 { pick(rng, &[0, 0, 0, 1, 2, 3]) as usize } else { 0 };
        let entry_bytes_max = 24 << 10;
        let clients = 1 + rng.below(9);
        let duration_ms = pick(rng, &[2000, 5000, 10_000, 20_000]);
        // However long it runs, it does not ask for more than so much.
        let think_us = pick(rng, &[200, 2000, 20_000]).max(clients * duration_ms * 1000 / MOMENTS_MAX);
        Shape {
            seed,
            voters,
            observers,
            fronts: pick(rng, &[1, 1, 2, 3]) as usize,
            clients: clients as usize,
            duration_ms,
            tick_ms,
            session_timeout_ms: (tick_ms * (2 + rng.below(6))) as i32,
            sector_bytes: pick(rng, &[512, 4096]) as usize,
            segment_bytes: pick(rng, &[64 << 10, 64 << 10, 256 << 10]),
            entry_bytes_max,
            batch_bytes_max: pick(rng, &[8 << 10, 16 << 10, 32 << 10]) as usize,
            in_flight_max: 1 + rng.below(2) as usize,
            snap_count: pick(rng, &[20, 100, 500, u64::MAX >> 1]),
            snap_retain: 1 + rng.below(3) as usize,
            recycles: rng.below(2) == 0,
            link_messages: pick(rng, &[16, 64, 4096]) as usize,
            outstanding_max: pick(rng, &[10, 1000]) as u32,
            window_bytes: pick(rng, &[2000, 64 << 10, 1 << 20]) as usize,
            net_delay_us: pick(rng, &[50, 500, 5000, 50_000]),
            disk_delay_us: pick(rng, &[50, 1000, 10_000]),
            turn_delay_us: pick(rng, &[1, 20, 1000]),
            pipelined: pick(rng, &[1, 4, 30, 100]) as usize,
            think_us,
            nodes_max: pick(rng, &[20, 100, 400]) as usize,
            names: 1 + rng.below(4),
            writes: pick(rng, &[10, 50, 90]),
            sweeps: rng.below(2) == 0,
            leader_serves: rng.below(6) > 0,
            epoch_wait_ms: if rng.below(2) == 0 { Some(tick_ms) } else { None },
            recent_bytes_max: pick(rng, &[1, 2000, 20_000, 64 << 20]) as usize,
            faults,
        }
    }
}
