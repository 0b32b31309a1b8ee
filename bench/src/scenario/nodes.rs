//! Many nodes: what one costs in memory, and how long a restart with all of them takes.

use std::time::Instant;

use ringkeeper::client::{Client, Request, Response};
use ringkeeper::proto::client::CreateMode;
use serde_json::{Value, json};

use super::{Scenario, ensure, pipelined};
use crate::fail;
use crate::failure::{Context, Result};
use crate::report::Outcome;
use crate::server::Server;

/// Every so many-th node is read back after the restart.
const CHECK_STRIDE: usize = 997;

/// How many nodes of what size.
#[derive(Clone, Debug)]
pub struct Nodes {
    pub nodes: usize,
    pub value_bytes: usize,
    /// Children of one parent.
    pub fan_out: usize,
}

impl Scenario for Nodes {
    fn name(&self) -> String {
        format!("{} nodes of {} B", self.nodes, self.value_bytes)
    }

    fn parameters(&self) -> Value {
        json!({ "nodes": self.nodes, "value_bytes": self.value_bytes, "name_bytes": 25, "fan_out": self.fan_out })
    }

    fn wants_fresh_server(&self) -> bool {
        true
    }

    fn connections(&self) -> usize {
        1
    }

    fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    fn run(&mut self, server: &mut Server, _first: bool) -> Result<Outcome> {
        if server.is_echo() {
            fail!("an echo server holds no nodes");
        }
        if !server.can_restart() {
            fail!("an external server cannot be restarted here");
        }
        let mut client = Client::open(server.addr).context("cannot set up")?;
        let resident = |server: &Server| -> Result<u64> {
            Ok(server.resident_bytes()?.expect("its pid is known: it was started here"))
        };
        let empty_bytes = resident(server)?;
        let started = Instant::now();
        self.fill(&mut client)?;
        let loading = started.elapsed();
        let loaded_bytes = resident(server)?;
        client.close()?;

        let stopping = Instant::now();
        server.stop()?;
        let stopped = stopping.elapsed();
        let restarted = server.launch()?;
        let restarted_bytes = resident(server)?;

        let mut client = Client::open(server.addr).context("cannot check")?;
        let checked = self.nodes.div_ceil(CHECK_STRIDE);
        pipelined(
            &mut client,
            checked,
            |client, index| {
                client.queue(&Request::GetData { path: &self.path(index * CHECK_STRIDE), watch: false });
            },
            |index, err, response| {
                let number = index * CHECK_STRIDE;
                match response {
                    Response::Data { data: Some(data), .. } if err == 0 && data == self.value(number) => {
                        Ok(())
                    }
                    _ => fail!("after the restart {} is not what was acknowledged: {err}", self.path(number)),
                }
            },
        )?;
        let mut found = 0;
        for number in 0..self.parents() {
            found += client.exists(&parent(number), false)?.map_or(0, |stat| stat.child_count as usize);
        }
        if found != self.nodes {
            fail!("after the restart there are {found} nodes, and {} were acknowledged", self.nodes);
        }
        client.close()?;

        let per_node = |bytes: u64| bytes.saturating_sub(empty_bytes) as f64 / self.nodes as f64;
        let mut outcome = Outcome::default();
        outcome.add("resident per node, loaded", "B", per_node(loaded_bytes));
        outcome.add("resident per node, restarted", "B", per_node(restarted_bytes));
        outcome.add("resident when empty", "MB", empty_bytes as f64 / 1e6);
        outcome.add("creates per second", "", self.nodes as f64 / loading.as_secs_f64());
        outcome.add("stop", "s", stopped.as_secs_f64());
        outcome.add("restart to serving", "s", restarted.as_secs_f64());
        Ok(outcome)
    }
}

impl Nodes {
    /// Creates them all.
    pub fn fill(&self, client: &mut Client) -> Result<()> {
        ensure(client, "/bench")?;
        create(client, self.parents(), |number| (parent(number), Vec::new()))?;
        create(client, self.nodes, |number| (self.path(number), self.value(number)))
    }

    fn parents(&self) -> usize {
        self.nodes.div_ceil(self.fan_out)
    }

    /// The name has 25 bytes.
    fn path(&self, number: usize) -> String {
        format!("{}/node-{number:020}", parent(number / self.fan_out))
    }

    fn value(&self, number: usize) -> Vec<u8> {
        (0..self.value_bytes).map(|offset| ((number * 31) ^ (offset * 7)) as u8).collect()
    }
}

fn parent(number: usize) -> String {
    format!("/bench/part-{number:06}")
}

fn create(client: &mut Client, count: usize, node: impl Fn(usize) -> (String, Vec<u8>)) -> Result<()> {
    pipelined(
        client,
        count,
        |client, number| {
            let (path, data) = node(number);
            client.queue(&Request::create(&path, &data, CreateMode::Persistent));
        },
        |number, err, _| {
            if err == 0 { Ok(()) } else { fail!("create {} failed with {err}", node(number).0) }
        },
    )
}
