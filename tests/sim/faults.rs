//! What goes wrong, and when.

use ringkeeper::txnlog::format::{BLOCK_BYTES, BatchHeader};

use super::shape::FAULTS;
use super::world::{Event, MS, World};

/// Completed log writes behind a damaged one, so that it is known to have been durable: the marks of later batches say so.
const WRITES_BEHIND: usize = 4;

impl World {
    pub fn plan_fault(&mut self, fault: usize) {
        let mean_ms = *self.shape.faults.by_name(FAULTS[fault]).expect("a name of the list");
        if mean_ms > 0 {
            let delay = 1 + self.chaos.below(2 * mean_ms * MS);
            self.at(self.now + delay, Event::Fault(fault));
        }
    }

    pub fn fault(&mut self, fault: usize) {
        let server = self.chaos.below(self.servers.len() as u64) as usize;
        let is_up = self.servers[server].node.is_some();
        match FAULTS[fault] {
            name @ ("power-cut" | "kill") if is_up => {
                let power = name == "power-cut";
                if self.chaos.below(2) == 0 {
                    // In its next turn, after any of its outputs.
                    let after = self.chaos.below(8) as usize;
                    self.servers[server].dies_after = Some((after, power));
                    return;
                }
                self.note(format!("server {server}: {name}"));
                self.crash(server, power);
            }
            "pause" if is_up => {
                let longest_ms = [50, 900, 3000, 20_000][self.chaos.below(4) as usize];
                let until = self.now + self.chaos.below(longest_ms * MS);
                self.servers[server].paused_until = until;
                self.note(format!("server {server} stands still for {} ms", (until - self.now) / MS));
                self.mark("a process stands still");
            }
            "cut" => {
                let ids: Vec<u32> = self.streams.keys().copied().collect();
                if !ids.is_empty() {
                    let id = ids[self.chaos.below(ids.len() as u64) as usize];
                    self.mark("a connection is cut");
                    self.break_stream(id);
                }
            }
            "stall" if is_up => {
                let until = self.now + self.chaos.below(6000 * MS);
                self.servers[server].stalled_until = until;
                self.note(format!("server {server}: its disk stalls for {} ms", (until - self.now) / MS));
                self.mark("a disk stalls");
            }
            "full" => {
                self.servers[server].disk.is_full = true;
                let until = self.now + self.chaos.below(5000 * MS);
                self.note(format!("server {server}: its disk is full for {} ms", (until - self.now) / MS));
                self.at(until, Event::DiskHasSpace { server });
            }
            "write-error" if is_up => self.servers[server].write_fails = true,
            "rot" if self.servers[server].sound.is_none() && is_up => self.rot(server),
            "wall-jump" => {
                let off_ms = self.chaos.below(7_200_000) as i64 - 3_600_000;
                self.servers[server].wall_off_ms = off_ms;
                self.note(format!("server {server}: its wall clock is off by {off_ms} ms"));
                self.mark("a wall clock jumps");
            }
            "silence" => {
                let client = self.chaos.below(self.clients.len() as u64) as usize;
                let longest = 3 * self.shape.session_timeout_ms as u64 * MS;
                let until = self.now + self.chaos.below(longest);
                self.clients[client].silent_until = until;
                self.mark("a client is silent");
            }
            "partition" => self.partition(),
            "peer-cut" => self.cut_a_peer(),
            _ => {}
        }
    }

    /// The power goes, and the medium is not as it was left: bytes rot, a write was lost, or went elsewhere.
    fn rot(&mut self, server: usize) {
        let written = &self.servers[server].written;
        if written.len() <= WRITES_BEHIND {
            return;
        }
        let place = self.chaos.below((written.len() - WRITES_BEHIND) as u64) as usize;
        let (number, name, offset, length) = written[place].clone();
        self.note(format!(
            "server {server}: power-cut, and log write {number} in {name} at {offset} is damaged"
        ));
        self.crash(server, true);
        let identity = self.identity(server);
        let machine = &mut self.servers[server];
        // Segments are retired and recycled: is it still there?
        let batch_at = if offset == 0 { BLOCK_BYTES } else { offset };
        let is_there = machine
            .disk
            .read(&name)
            .and_then(|bytes| BatchHeader::decode(identity, bytes.get(batch_at..)?))
            .is_some_and(|header| header.number == number);
        if !is_there {
            return;
        }
        machine.sound = Some(machine.disk.clone());
        let kind = self.chaos.below(3);
        let at = self.chaos.below(length as u64) as usize;
        let machine = &mut self.servers[server];
        match kind {
            0 => machine.disk.damage(&name, offset + at, |bytes| bytes[0] ^= 1 << (at % 8)),
            // As if it had never been written.
            1 => machine.disk.damage(&name, offset, |bytes| bytes[..length].fill(0)),
            // It went to another block of the file, and hit what was there.
            _ => {
                let lost = machine.disk.read(&name).expect("looked at")[offset..offset + length].to_vec();
                let end = machine.disk.read(&name).expect("looked at").len();
                machine.disk.damage(&name, offset, |bytes| bytes[..length].fill(0));
                let other = (at * 7 * BLOCK_BYTES) % (end - length + 1) / BLOCK_BYTES * BLOCK_BYTES;
                machine.disk.damage(&name, other, |bytes| bytes[..length].copy_from_slice(&lost));
            }
        }
        self.mark("the medium is damaged");
    }
}
