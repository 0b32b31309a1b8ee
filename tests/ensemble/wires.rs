//! What servers say to one another, through sockets of the test: each ordered pair has its own ports, and can be cut.
//!
//! A cut is silence: connections stay, and what is sent waits, as on a network that loses everything. What waited goes on when the cut
//! ends, as a sender's kernel would send it again.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

pub struct Wires {
    /// By dialler and the one dialled.
    wires: BTreeMap<(usize, usize), Wire>,
    count: usize,
}

struct Wire {
    quorum_port: u16,
    election_port: u16,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    cut: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let cut = self.cut.lock().expect("no panic");
        drop(self.changed.wait_while(cut, |cut| *cut).expect("no panic"));
    }

    fn set(&self, cut: bool) {
        *self.cut.lock().expect("no panic") = cut;
        self.changed.notify_all();
    }
}

impl Wires {
    /// From the quorum and election port of each server.
    pub fn new(servers: &[(u16, u16)]) -> Wires {
        let mut wires = BTreeMap::new();
        for from in 0..servers.len() {
            for (to, (quorum, election)) in servers.iter().enumerate() {
                if from != to {
                    let gate = Arc::new(Gate::default());
                    let quorum_port = lead(*quorum, &gate);
                    let election_port = lead(*election, &gate);
                    wires.insert((from, to), Wire { quorum_port, election_port, gate });
                }
            }
        }
        Wires { wires, count: servers.len() }
    }

    /// What server `from` dials to reach `to`: quorum and election port.
    pub fn ports(&self, from: usize, to: usize) -> (u16, u16) {
        let wire = &self.wires[&(from, to)];
        (wire.quorum_port, wire.election_port)
    }

    /// Nothing passes between these two, whoever dialled.
    pub fn cut(&self, a: usize, b: usize) {
        self.set(a, b, true);
    }

    pub fn isolate(&self, one: usize) {
        (0..self.count).filter(|other| *other != one).for_each(|other| self.cut(one, other));
    }

    pub fn heal(&self) {
        self.wires.values().for_each(|wire| wire.gate.set(false));
    }

    fn set(&self, a: usize, b: usize, cut: bool) {
        for pair in [(a, b), (b, a)] {
            self.wires[&pair].gate.set(cut);
        }
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        // Threads that wait go on and find their sockets closed; those that accept end with the test program.
        self.heal();
    }
}

/// Forwards what comes to a new port.
fn lead(target: u16, gate: &Arc<Gate>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let gate = gate.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let gate = gate.clone();
            std::thread::spawn(move || connect(stream, target, &gate));
        }
    });
    port
}

fn connect(near: TcpStream, target: u16, gate: &Arc<Gate>) {
    gate.pass();
    // Nobody there: whoever dialled sees its connection end.
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)) else { return };
    let (Ok(near_again), Ok(far_again)) = (near.try_clone(), far.try_clone()) else { return };
    let back = gate.clone();
    std::thread::spawn(move || forward(far_again, near_again, &back));
    forward(near, far, gate);
}

fn forward(mut from: TcpStream, mut to: TcpStream, gate: &Gate) {
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        gate.pass();
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
