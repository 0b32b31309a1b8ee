//! What a run found: a line of JSON each, and a table at the end.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::failure::{Context, Result};

/// One figure of one run.
#[derive(Clone, PartialEq, Debug)]
pub struct Metric {
    pub name: String,
    pub unit: Cow<'static, str>,
    pub value: f64,
}

/// What one scenario found on one server, once.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub metrics: Vec<Metric>,
    /// What a reader must know to trust the figures.
    pub notes: Vec<String>,
    /// Throughput and latency are the generator's own: nothing may be said about the server by them.
    pub refused: bool,
    /// What is drawn.
    pub series: Vec<Series>,
}

/// A curve: what it shows, and its points.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Series {
    pub name: String,
    pub kind: SeriesKind,
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeriesKind {
    /// Seconds, and answers per second.
    Timeline,
    /// Share of answers (0 to 1), and their latency in us.
    Latency,
}

impl Outcome {
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, value: f64) {
        self.metrics.push(Metric { name: name.into(), unit: unit.into(), value });
    }

    /// Notes why, and lets nobody conclude from throughput and latency.
    pub fn refuse(&mut self, why: impl Into<String>) {
        self.refused = true;
        self.note(why);
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// One outcome and where it belongs.
#[derive(Clone, Debug)]
pub struct Run {
    pub scenario: String,
    pub parameters: Value,
    pub server: String,
    /// How the server was started, for the record.
    pub server_details: Value,
    /// From one.
    pub repetition: usize,
    pub outcome: Outcome,
    /// Where and when.
    pub host: Value,
}

impl Run {
    fn line(&self) -> Value {
        let mut metrics = Map::new();
        for metric in &self.outcome.metrics {
            // Whatever cannot be a number in JSON was not measured.
            metrics.insert(metric.name.clone(), json!({ "unit": metric.unit, "value": metric.value }));
        }
        json!({
            "scenario": self.scenario,
            "parameters": self.parameters,
            "server": self.server,
            "server_details": self.server_details,
            "repetition": self.repetition,
            "metrics": metrics,
            "notes": self.outcome.notes,
            "verdict_refused": self.outcome.refused,
            "series": self.outcome.series,
            "host": self.host,
        })
    }

    /// The run a line tells; lines of earlier versions have fewer fields.
    fn of_line(mut line: Value) -> Option<Run> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut outcome =
            Outcome { refused: line["verdict_refused"].as_bool().unwrap_or(false), ..Outcome::default() };
        for (name, metric) in line["metrics"].as_object()? {
            if let Some(value) = metric["value"].as_f64() {
                let unit = text(&metric["unit"]).unwrap_or_default().into();
                outcome.metrics.push(Metric { name: name.clone(), unit, value });
            }
        }
        outcome.notes = line["notes"].as_array()?.iter().filter_map(text).collect();
        outcome.series = serde_json::from_value(line["series"].take()).unwrap_or_default();
        Some(Run {
            scenario: text(&line["scenario"])?,
            server: text(&line["server"])?,
            repetition: line["repetition"].as_u64()? as usize,
            parameters: line["parameters"].take(),
            server_details: line["server_details"].take(),
            host: line["host"].take(),
            outcome,
        })
    }

    /// Of the generator, which is built with the server.
    fn commit(&self) -> &str {
        self.host["commit"].as_str().unwrap_or_default()
    }
}

/// All runs in the files of a directory whose names end in `.jsonl`, by name.
pub fn read(results: &Path) -> Result<Vec<Run>> {
    let doing = || format!("cannot read {}", results.display());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(results).context(doing())? {
        files.push(entry.context(doing())?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let mut runs = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).context(format_args!("cannot read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            let run = serde_json::from_str(line).ok().and_then(Run::of_line);
            let Some(run) = run else {
                crate::fail!("{}:{}: the line is no run of this program", path.display(), number + 1)
            };
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Two commits side by side: of every figure both have, the medians and their ratio.
pub fn diff(runs: &[Run], before: &str, after: &str) -> Result<String> {
    let of =
        |commit: &str| -> Vec<&Run> { runs.iter().filter(|run| run.commit().starts_with(commit)).collect() };
    let (old, new) = (of(before), of(after));
    for (commit, runs) in [(before, &old), (after, &new)] {
        if runs.is_empty() {
            crate::fail!("no run of commit {commit} is among the results");
        }
    }
    let mut text = String::new();
    for scenario in unique(old.iter().map(|run| run.scenario.as_str())) {
        let of = |runs: &[&Run]| -> Vec<Run> {
            runs.iter().filter(|run| run.scenario == scenario).map(|run| (*run).clone()).collect()
        };
        let (old, new) = (of(&old), of(&new));
        let (old, new): (Vec<&Run>, Vec<&Run>) = (old.iter().collect(), new.iter().collect());
        let mut cells = vec![["", before, after, "after : before"].map(str::to_owned).to_vec()];
        for server in unique(old.iter().map(|run| run.server.as_str())) {
            for name in unique(
                old.iter().flat_map(|run| run.outcome.metrics.iter().map(|metric| metric.name.as_str())),
            ) {
                let middle = |runs: &[&Run]| {
                    let mut values: Vec<f64> =
                        values(runs, server, name).into_iter().map(|(_, value)| value).collect();
                    median(&mut values)
                };
                if let (Some(old), Some(new)) = (middle(&old), middle(&new)) {
                    let ratio = if old == 0.0 { "-".to_owned() } else { figure(new / old) };
                    cells.push(vec![format!("{server}: {name}"), figure(old), figure(new), ratio]);
                }
            }
        }
        if cells.len() > 1 {
            let _ = writeln!(text, "\n{scenario}");
            text.push_str(&rows(&cells));
        }
    }
    Ok(text)
}

/// Whether a figure is the server's own even when the generator was the bottleneck.
fn is_cost(name: &str) -> bool {
    ["time per", "of it ", "switches per", "written per", "resident", " per write", "busy", "taken by"]
        .iter()
        .any(|part| name.contains(part))
}

/// Keeps the runs and writes each to `results` as soon as it is there.
#[derive(Debug)]
pub struct Report {
    host: Value,
    results: Option<PathBuf>,
    runs: Vec<Run>,
}

impl Report {
    /// `results` is a directory; `None` writes no lines.
    pub fn new(host: Value, results: Option<PathBuf>) -> Result<Report> {
        if let Some(results) = &results {
            fs::create_dir_all(results).context(format_args!("cannot make {}", results.display()))?;
        }
        Ok(Report { host, results, runs: Vec::new() })
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    pub fn add(&mut self, mut run: Run) -> Result<()> {
        run.host = self.host.clone();
        if let Some(results) = &self.results {
            append(&results.join("runs.jsonl"), &run.line())?;
        }
        self.runs.push(run);
        Ok(())
    }

    /// A block per scenario: each metric as "median (least)" of the repetitions, a column a server, then the ratio of each
    /// server to the last, as the median of the ratios within a repetition and their range.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for scenario in unique(self.runs.iter().map(|run| run.scenario.as_str())) {
            let runs: Vec<&Run> = self.runs.iter().filter(|run| run.scenario == scenario).collect();
            let _ = writeln!(text, "\n{scenario}");
            let servers = unique(runs.iter().map(|run| run.server.as_str()));
            text.push_str(&rows(&metric_rows(&runs, &servers)));
            for note in unique(runs.iter().flat_map(|run| run.outcome.notes.iter().map(String::as_str))) {
                let _ = writeln!(text, "  note: {note}");
            }
        }
        text
    }
}

/// The header and a row for each metric, as cells.
pub fn metric_rows(runs: &[&Run], servers: &[&str]) -> Vec<Vec<String>> {
    let base = servers.last().copied().unwrap_or_default();
    let mut header = vec![String::new()];
    header.extend(servers.iter().map(|server| (*server).to_owned()));
    header
        .extend(servers.iter().filter(|server| **server != base).map(|server| format!("{server} : {base}")));
    let mut rows = vec![header];
    let names =
        unique(runs.iter().flat_map(|run| run.outcome.metrics.iter().map(|metric| metric.name.as_str())));
    for name in names {
        let unit = runs
            .iter()
            .flat_map(|run| &run.outcome.metrics)
            .find(|metric| metric.name == name)
            .map_or("", |metric| metric.unit.as_ref());
        let mut row = vec![if unit.is_empty() { name.to_owned() } else { format!("{name}, {unit}") }];
        for server in servers {
            let mut values: Vec<f64> =
                values(runs, server, name).into_iter().map(|(_, value)| value).collect();
            row.push(match median(&mut values) {
                None => "-".to_owned(),
                Some(middle) if values.len() == 1 => figure(middle),
                Some(middle) => format!("{} ({})", figure(middle), figure(values[0])),
            });
        }
        for server in servers.iter().filter(|server| **server != base) {
            let based = values(runs, base, name);
            let mut ratios: Vec<f64> = values(runs, server, name)
                .into_iter()
                .filter_map(|(repetition, value)| {
                    let (_, base) = based.iter().find(|(other, _)| *other == repetition)?;
                    (*base != 0.0).then(|| value / base)
                })
                .collect();
            let refused =
                runs.iter().any(|run| run.outcome.refused && (run.server == *server || run.server == base));
            row.push(match median(&mut ratios) {
                None => "-".to_owned(),
                Some(_) if refused && !is_cost(name) => "no verdict".to_owned(),
                Some(middle) if ratios.len() == 1 => figure(middle),
                Some(middle) => {
                    format!(
                        "{} [{} .. {}]",
                        figure(middle),
                        figure(ratios[0]),
                        figure(ratios[ratios.len() - 1])
                    )
                }
            });
        }
        rows.push(row);
    }
    rows
}

/// The repetitions of one server that have the metric.
pub fn values(runs: &[&Run], server: &str, name: &str) -> Vec<(usize, f64)> {
    runs.iter()
        .filter(|run| run.server == server)
        .filter_map(|run| {
            let metric = run.outcome.metrics.iter().find(|metric| metric.name == name)?;
            Some((run.repetition, metric.value))
        })
        .collect()
}

/// Cells in columns: the first flush left, the others flush right.
fn rows(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if column == 0 {
                let _ = write!(line, " {cell}{pad}");
            } else {
                let _ = write!(line, "  {pad}{cell}");
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Sorts, and returns the middle; of an even count the lower of the two.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

/// Three digits or so, none of them idle.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => {
            let digits = format!("{value:.0}");
            let (sign, digits) = digits.split_at(usize::from(value < 0.0));
            let mut text = sign.to_owned();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub fn unique<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

fn append(path: &Path, line: &Value) -> Result<()> {
    let doing = format!("cannot append to {}", path.display());
    let mut file = File::options().create(true).append(true).open(path).context(&doing)?;
    file.write_all(format!("{line}\n").as_bytes()).context(&doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(server: &str, repetition: usize, value: f64) -> Run {
        let mut outcome = Outcome::default();
        outcome.add("cost", "us", value);
        Run {
            scenario: "get".into(),
            parameters: Value::Null,
            server: server.into(),
            server_details: Value::Null,
            repetition,
            outcome,
            host: Value::Null,
        }
    }

    #[test]
    fn ratios_are_taken_within_a_repetition() {
        let mut report = Report::new(Value::Null, None).unwrap();
        for (repetition, ours, theirs) in [(1, 2.0, 4.0), (2, 3.0, 3.0), (3, 1.0, 4.0)] {
            report.add(run("a", repetition, ours)).unwrap();
            report.add(run("b", repetition, theirs)).unwrap();
        }
        let table = report.table();
        assert!(table.contains("2.00 (1.00)") && table.contains("4.00 (3.00)"), "{table}");
        assert!(table.contains("0.500 [0.250 .. 1.00]"), "{table}");
    }

    #[test]
    fn each_run_is_a_line() {
        let dir = std::env::temp_dir().join(format!("ringkeeper-bench-report-{}", std::process::id()));
        let mut report = Report::new(json!({"cpu": "x"}), Some(dir.clone())).unwrap();
        report.add(run("a", 1, 2.0)).unwrap();
        report.add(run("a", 2, 2.5)).unwrap();
        let lines = fs::read_to_string(dir.join("runs.jsonl")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["metrics"]["cost"]["value"], 2.5);
        assert_eq!(lines[0]["host"]["cpu"], "x");
    }

    #[test]
    fn figures_keep_what_counts() {
        for (value, text) in
            [(0.0, "0.00"), (0.1542, "0.154"), (5.617, "5.62"), (1234567.8, "1,234,568"), (-1234.0, "-1,234")]
        {
            assert_eq!(figure(value), text);
        }
    }
}
