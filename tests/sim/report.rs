//! One seed from beginning to end, and how its failure is told.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::check::Summary;
use super::shape::{FAULTS, Shape};
use super::world::{Class, Failure, World};

/// Exit codes of the program: what kind of promise was broken.
pub const EXIT_SAFETY: i32 = 1;
pub const EXIT_LIVENESS: i32 = 2;
/// The server stopped on a failed assertion, or the simulator did.
pub const EXIT_CRASH: i32 = 3;

/// What to change about a seed's world, to find out what a failure needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    pub without: Vec<String>,
    pub clients_max: Option<usize>,
    pub duration_ms_max: Option<u64>,
    /// No ensembles: one server alone.
    pub alone: bool,
}

impl Limits {
    pub fn shape(&self, seed: u64) -> Shape {
        let mut shape = Shape::draw(seed);
        for name in &self.without {
            *shape.faults.by_name(name).unwrap_or_else(|| panic!("{name} is none of {FAULTS:?}")) = 0;
        }
        if self.alone {
            (shape.voters, shape.observers) = (1, 0);
        }
        if let Some(max) = self.clients_max {
            shape.clients = shape.clients.min(max);
        }
        if let Some(max) = self.duration_ms_max {
            shape.duration_ms = shape.duration_ms.min(max);
        }
        shape
    }

    /// As arguments of the program.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        for name in &self.without {
            arguments.extend(["--without".to_owned(), name.clone()]);
        }
        if self.alone {
            arguments.push("--alone".to_owned());
        }
        if let Some(max) = self.clients_max {
            arguments.extend(["--clients".to_owned(), max.to_string()]);
        }
        if let Some(max) = self.duration_ms_max {
            arguments.extend(["--duration-ms".to_owned(), max.to_string()]);
        }
        arguments
    }
}

/// What came of a seed.
pub struct Outcome {
    pub events: u64,
    /// Two runs of a seed have the same.
    pub trace: u64,
    pub marks: BTreeMap<&'static str, u64>,
    pub result: Result<Summary, (Failure, String)>,
}

thread_local! {
    /// Of the run under way on this thread, for the report of a panic.
    static RUNNING: RefCell<Option<(Shape, Limits)>> = const { RefCell::new(None) };
}

pub fn run_seed(seed: u64, limits: &Limits) -> Outcome {
    let shape = limits.shape(seed);
    RUNNING.with(|running| *running.borrow_mut() = Some((shape.clone(), limits.clone())));
    let mut world = World::new(shape);
    let result = world.run().map_err(|failure| {
        let report = report(&world, limits, &failure);
        (failure, report)
    });
    RUNNING.with(|running| *running.borrow_mut() = None);
    Outcome { events: world.steps, trace: world.trace(), marks: std::mem::take(&mut world.marks), result }
}

/// Has a panic tell which seed it was of, and end the process with [`EXIT_CRASH`].
pub fn tell_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        let running = RUNNING.with(|running| running.borrow().clone());
        if let Some((shape, limits)) = running {
            eprintln!("CRASH (P12)\n{}", heading(&shape, &limits));
        }
        std::process::exit(EXIT_CRASH);
    }));
}

pub fn exit_code(class: Class) -> i32 {
    match class {
        Class::Safety => EXIT_SAFETY,
        Class::Liveness => EXIT_LIVENESS,
    }
}

fn heading(shape: &Shape, limits: &Limits) -> String {
    let again = limits.arguments().join(" ");
    format!(
        "commit {}\nrepeat with: cargo run --release --example sim -- --seed {} {again}\n{shape:?}",
        env!("RINGKEEPER_GIT"),
        shape.seed
    )
}

fn report(world: &World, limits: &Limits, failure: &Failure) -> String {
    let notes: Vec<&str> = world.notes().collect();
    let class = match failure.class {
        Class::Safety => "SAFETY",
        Class::Liveness => "LIVENESS",
    };
    format!(
        "{class} {}\nafter {} events, trace {:016x}\n{}\nlast marks:\n{}",
        failure.violation,
        world.steps,
        world.trace(),
        heading(&world.shape, limits),
        notes.join("\n")
    )
}
