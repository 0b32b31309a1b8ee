//! Scenarios as files: TOML, checked when read. Those of `bench/scenarios` are built in and known by name.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::fail;
use crate::failure::{Context, Result};
use crate::scenario::load::{Arrivals, Children, Expect, Group, Keys, Load, Mix, Pacing, Place, Versions};

/// By name.
const BUILT_IN: [(&str, &str); 9] = [
    ("compare", include_str!("../scenarios/compare.toml")),
    ("quick", include_str!("../scenarios/quick.toml")),
    ("ycsb-a", include_str!("../scenarios/ycsb-a.toml")),
    ("ycsb-b", include_str!("../scenarios/ycsb-b.toml")),
    ("ycsb-c", include_str!("../scenarios/ycsb-c.toml")),
    ("read-ratio", include_str!("../scenarios/read-ratio.toml")),
    ("raftkeeper", include_str!("../scenarios/raftkeeper.toml")),
    ("large-values", include_str!("../scenarios/large-values.toml")),
    ("list", include_str!("../scenarios/list.toml")),
];
const SESSIONS_MAX: usize = 100_000;
const OUTSTANDING_MAX: usize = 10_000;
/// Below the limit of a frame, with room for its path.
const VALUE_BYTES_MAX: usize = 1_000_000;
const NODES_MAX: usize = 1_000_000;

/// How long the parts of a step take.
#[derive(Clone, Copy, Debug)]
pub struct Durations {
    pub warm_up: Duration,
    pub first_warm_up: Duration,
    pub duration: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// What it is after, for readers of the file.
    #[serde(rename = "about")]
    _about: String,
    #[serde(default = "value_bytes")]
    value_bytes: usize,
    #[serde(default = "nodes")]
    nodes: usize,
    #[serde(default)]
    keys: Keys,
    expect: Expected,
    step: Vec<Step>,
}

/// The end state.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    versions: Versions,
    children: Children,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    title: Option<String>,
    sessions: usize,
    outstanding: Option<usize>,
    rate: Option<f64>,
    #[serde(default)]
    arrivals: Arrivals,
    #[serde(default)]
    place: Place,
    mix: Mix,
}

fn value_bytes() -> usize {
    100
}

fn nodes() -> usize {
    1024
}

/// The steps of the scenario in a file, or of the one built in under that name.
pub fn read(name: &str, durations: Durations) -> Result<Vec<Load>> {
    if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
        return parse(name, text, durations);
    }
    let path = Path::new(name);
    if path.extension().is_none_or(|extension| extension != "toml") {
        let known: Vec<&str> = BUILT_IN.iter().map(|(known, _)| *known).collect();
        fail!("the scenario {name:?} is neither a .toml file nor one of {}", known.join(", "));
    }
    let text = std::fs::read_to_string(path).context(format_args!("cannot read {name}"))?;
    parse(name, &text, durations)
}

fn parse(name: &str, text: &str, durations: Durations) -> Result<Vec<Load>> {
    // One line: the parser's own message draws the place over several.
    let file: File = toml::from_str(text).map_err(|error| {
        let line =
            error.span().map_or(0, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        crate::failure::Failure(format!("{name}:{line}: {}", error.message().replace('\n', " ")))
    })?;
    if file.step.is_empty() {
        fail!("{name}: no [[step]] is given");
    }
    for (key, value, most) in
        [("value_bytes", file.value_bytes, VALUE_BYTES_MAX), ("nodes", file.nodes, NODES_MAX)]
    {
        if value > most || value == 0 {
            fail!("{name}: {key} = {value}: 1 to {most} is expected");
        }
    }
    file.step
        .iter()
        .enumerate()
        .map(|(number, step)| {
            load(&file, step, durations).context(format_args!("{name}, step {}", number + 1))
        })
        .collect()
}

fn load(file: &File, step: &Step, durations: Durations) -> Result<Load> {
    if step.sessions == 0 || step.sessions > SESSIONS_MAX {
        fail!("sessions = {}: 1 to {SESSIONS_MAX} is expected", step.sessions);
    }
    if step.mix.sum() == 0 {
        fail!("mix: one of get, set, create, delete, list above zero is expected");
    }
    let pacing = match (step.outstanding, step.rate) {
        (Some(outstanding), None) if (1..=OUTSTANDING_MAX).contains(&outstanding) => {
            Pacing::Closed { outstanding }
        }
        (None, Some(rate)) if (1.0..=1e7).contains(&rate) => Pacing::Open { rate, arrivals: step.arrivals },
        (outstanding, rate) => fail!(
            "one of outstanding, 1 to {OUTSTANDING_MAX}, and rate, 1 to 10000000, is expected, not {outstanding:?} and {rate:?}"
        ),
    };
    Ok(Load {
        title: step.title.clone(),
        groups: vec![Group { mix: step.mix, sessions: step.sessions, pacing, place: step.place }],
        keys: file.keys,
        value_bytes: file.value_bytes,
        nodes: file.nodes,
        warm_up: durations.warm_up,
        first_warm_up: durations.first_warm_up,
        duration: durations.duration,
        shape: None,
        expect: Expect { versions: file.expect.versions, children: file.expect.children },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATIONS: Durations = Durations {
        warm_up: Duration::ZERO,
        first_warm_up: Duration::ZERO,
        duration: Duration::from_secs(1),
    };

    #[test]
    fn built_in_scenarios_are_sound() {
        for (name, _) in BUILT_IN {
            let loads = read(name, DURATIONS).unwrap();
            let mut names: Vec<_> = loads.iter().map(crate::scenario::Scenario::name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), loads.len(), "two steps of {name} have one name");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_a_line() {
        let head = "about = \"x\"\nexpect = { versions = \"unchanged\", children = 0 }\n";
        for (text, expected) in [
            (
                "sessions = 4\noutstanding = 1\nmix = { get = 1 }\ncolour = 3",
                "x.toml:7: unknown field `colour`",
            ),
            ("sessions = 4\noutstanding = 1\nmix = { got = 1 }", "unknown field `got`"),
            ("sessions = 0\noutstanding = 1\nmix = { get = 1 }", "x.toml, step 1: sessions = 0: 1 to"),
            ("sessions = 4\nmix = { get = 1 }", "one of outstanding"),
            ("sessions = 4\noutstanding = 1\nmix = {}", "above zero"),
        ] {
            let failure = parse("x.toml", &format!("{head}[[step]]\n{text}\n"), DURATIONS).unwrap_err();
            assert!(failure.0.contains(expected) && failure.0.lines().count() == 1, "{failure}");
        }
        assert!(parse("x.toml", "about = \"x\"", DURATIONS).unwrap_err().0.contains("expect"));
        assert!(read("nonsense", DURATIONS).unwrap_err().0.contains("neither"));
    }
}
