//! Runs scenarios on servers in turn.

use serde_json::json;

use crate::failure::{Context, Result};
use crate::report::{Report, Run};
use crate::scenario::Scenario;
use crate::server::{Server, ServerOptions, ServerSpec, Shape, names};
use crate::sys;

/// Files a process needs beyond its connections.
const FILES_BESIDES: u64 = 256;

/// Measures every scenario on every server, A B A B. Servers that a scenario may share with others stay up, idle, while
/// another is measured; the rest are started for each measurement.
pub fn run(
    specs: &[ServerSpec],
    scenarios: Vec<Box<dyn Scenario>>,
    repetitions: usize,
    options: &ServerOptions,
    report: &mut Report,
) -> Result<()> {
    let connections = scenarios.iter().map(|scenario| scenario.connections()).max().unwrap_or(0);
    sys::open_files_at_least(connections as u64 + FILES_BESIDES)
        .context(format_args!("{connections} connections"))?;
    let names = names(specs);
    let (fresh, shared): (Vec<_>, Vec<_>) = scenarios
        .into_iter()
        .partition(|scenario| scenario.wants_fresh_server() || !scenario.lines().is_empty());
    let shape_of = |scenario: &dyn Scenario| scenario.shape().unwrap_or(options.shape);
    let mut shapes: Vec<Shape> = Vec::new();
    for scenario in &shared {
        if !shapes.contains(&shape_of(scenario.as_ref())) {
            shapes.push(shape_of(scenario.as_ref()));
        }
    }
    let mut shared = shared;
    for shape in shapes {
        let mut servers = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            servers.push(Server::start(spec, number, &names[number], shape, options)?);
        }
        for scenario in shared.iter_mut().filter(|scenario| shape_of(scenario.as_ref()) == shape) {
            for repetition in 1..=repetitions {
                for (server, spec) in servers.iter_mut().zip(specs) {
                    measure(scenario.as_mut(), server, spec, repetition, options, report)?;
                }
            }
        }
        for server in &mut servers {
            server.stop()?;
        }
    }
    for mut scenario in fresh {
        for repetition in 1..=repetitions {
            for (number, spec) in specs.iter().enumerate().filter(|(_, spec)| **spec != ServerSpec::Echo) {
                let options = ServerOptions { lines: scenario.lines(), ..options.clone() };
                let mut server =
                    Server::start(spec, number, &names[number], shape_of(scenario.as_ref()), &options)?;
                measure(scenario.as_mut(), &mut server, spec, repetition, &options, report)?;
                server.stop()?;
            }
        }
    }
    Ok(())
}

fn measure(
    scenario: &mut dyn Scenario,
    server: &mut Server,
    spec: &ServerSpec,
    repetition: usize,
    options: &ServerOptions,
    report: &mut Report,
) -> Result<()> {
    eprintln!("{}: {}, repetition {repetition}", scenario.name(), server.name);
    let doing = format!("{}: {}", scenario.name(), server.name);
    let outcome = scenario.run(server, repetition == 1).context(doing)?;
    let server_details = json!({
        "spec": format!("{spec:?}"),
        "voters": server.shape.voters,
        "observers": server.shape.observers,
        "lines": options.lines,
        "settings": if matches!(spec, ServerSpec::Ringkeeper(_)) { options.settings.clone() } else { Vec::new() },
        "java": if matches!(spec, ServerSpec::ZooKeeper(_)) { options.java_options.clone() } else { Vec::new() },
    });
    report.add(Run {
        scenario: scenario.name(),
        parameters: scenario.parameters(),
        server: server.name.clone(),
        server_details,
        repetition,
        outcome,
        host: serde_json::Value::Null,
    })
}
