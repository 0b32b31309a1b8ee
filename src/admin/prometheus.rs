//! Metrics in Prometheus' text exposition, format 0.0.4, with the names of ZooKeeper's provider.
//!
//! Each family stands once, with `# HELP` and `# TYPE` before its samples. Values are doubles as Java prints them.
//! Summaries have the quantiles of ZooKeeper before and after 3.10 (0.5, 0.9, 0.95, 0.99), of all values since the start
//! or the last `srst`; where only sums are kept a median is left out, and where nothing was recorded it is `NaN`.
//! Source: ZooKeeper `PrometheusMetricsProvider`, the Prometheus Java client's `TextFormat#write004`.

use crate::metrics::{Latency, Tally};
use crate::words::{MetricKind, MetricSink, Number, Report, ServerFacts, java_double, metrics};

/// What the answer's `Content-Type` says.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const QUANTILES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// What the process is at the moment, as far as its system tells. Source: Prometheus Java client `StandardExports`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessNow {
    pub cpu_seconds: f64,
    /// Since 1970.
    pub start_time_seconds: f64,
    pub virtual_bytes: u64,
    pub threads: u64,
}

/// Everything there is to tell. `process`: also what `metricsProvider.exportJvmInfo` asks for; of the Java machine's
/// families those that mean something here.
pub fn exposition(facts: &ServerFacts, report: &Report, process: Option<&ProcessNow>) -> String {
    let mut text = Exposition::default();
    metrics(&mut text, facts, report);
    if let Some(process) = process {
        text.process(facts, process);
    }
    text.out
}

#[derive(Default)]
struct Exposition {
    out: String,
    /// The family whose samples are being written.
    family: String,
}

impl Exposition {
    fn family(&mut self, name: &str, kind: &str) {
        if self.family != name {
            self.family = name.to_owned();
            self.out.push_str(&format!("# HELP {name} {name}\n# TYPE {name} {kind}\n"));
        }
    }

    /// `labels` with its braces, or nothing.
    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let value = java_double(value);
        // Java's name for it is not the format's.
        let value = if value == "Infinity" { "+Inf" } else { &value };
        self.out.push_str(&format!("{name}{labels} {value}\n"));
    }

    fn summary(&mut self, name: &str, tally: &Tally, quantiles: &[(f64, f64)], scale: u64) {
        self.family(name, "summary");
        for (quantile, value) in quantiles {
            self.sample(name, &format!("{{quantile=\"{quantile}\",}}"), *value);
        }
        self.sample(&format!("{name}_count"), "", tally.count as f64);
        self.sample(&format!("{name}_sum"), "", tally.sum as f64 / scale as f64);
    }

    fn process(&mut self, facts: &ServerFacts, process: &ProcessNow) {
        let gauges = &facts.process;
        let resident = gauges.resident_bytes.get() as f64;
        for (name, kind, value) in [
            ("process_cpu_seconds_total", "counter", process.cpu_seconds),
            ("process_start_time_seconds", "gauge", process.start_time_seconds),
            ("process_open_fds", "gauge", gauges.open_file_descriptors.get() as f64),
            ("process_max_fds", "gauge", gauges.max_file_descriptors.get() as f64),
            ("process_virtual_memory_bytes", "gauge", process.virtual_bytes as f64),
            ("process_resident_memory_bytes", "gauge", resident),
            ("jvm_threads_current", "gauge", process.threads as f64),
        ] {
            self.family(name, kind);
            self.sample(name, "", value);
        }
        // So that alerts on a full heap keep their meaning: what is used of what may be.
        let limit = gauges.memory_limit_bytes.get() as f64;
        for (name, value) in [("jvm_memory_bytes_used", resident), ("jvm_memory_bytes_max", limit)] {
            self.family(name, "gauge");
            self.sample(name, "{area=\"heap\",}", value);
        }
    }
}

impl MetricSink for Exposition {
    fn value(&mut self, kind: MetricKind, name: &str, value: Number) {
        self.family(name, kind_name(kind));
        self.sample(name, "", double(value));
    }

    fn set(&mut self, kind: MetricKind, name: &str) {
        self.family(name, kind_name(kind));
    }

    fn keyed(&mut self, kind: MetricKind, name: &str, key: &str, value: Number) {
        self.family(name, kind_name(kind));
        let key = key.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        self.sample(name, &format!("{{key=\"{key}\",}}"), double(value));
    }

    fn basic(&mut self, name: &str, tally: &Tally, latency: Option<&Latency>, scale: u64) {
        let median = match latency {
            _ if tally.count == 0 => Some(f64::NAN),
            Some(latency) => Some(latency.quantile_us(0.5) as f64 / scale as f64),
            None => None,
        };
        let quantiles: Vec<(f64, f64)> = median.into_iter().map(|value| (0.5, value)).collect();
        self.summary(name, tally, &quantiles, scale);
    }

    fn detailed(&mut self, name: &str, latency: Option<&Latency>, scale: u64) {
        let tally = latency.map(|latency| latency.exact).unwrap_or_default();
        let value = |quantile| match latency {
            Some(latency) if tally.count > 0 => latency.quantile_us(quantile) as f64 / scale as f64,
            _ => f64::NAN,
        };
        self.summary(name, &tally, &QUANTILES.map(|quantile| (quantile, value(quantile))), scale);
    }
}

fn kind_name(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Gauge => "gauge",
        MetricKind::Counter => "counter",
        MetricKind::Summary => "summary",
    }
}

fn double(value: Number) -> f64 {
    match value {
        Number::Whole(value) => value as f64,
        Number::Real(value) => value,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::proto::client::OpCode;
    use crate::words::NamespaceReport;

    /// Family, kind and samples of each family, checked for what a scraper wants of the format.
    fn families(text: &str) -> BTreeMap<String, (String, Vec<String>)> {
        let mut found: BTreeMap<String, (String, Vec<String>)> = BTreeMap::new();
        let mut lines = text.lines();
        let mut family = String::new();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {family} ")).unwrap();
                assert!(matches!(kind, "gauge" | "counter" | "summary"), "{line}");
                assert!(
                    found.insert(family.clone(), (kind.to_owned(), Vec::new())).is_none(),
                    "{family} twice"
                );
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(matches!(value, "NaN" | "+Inf") || value.parse::<f64>().is_ok(), "{line}");
            let bare = name.split('{').next().unwrap();
            let of_family = [family.clone(), format!("{family}_count"), format!("{family}_sum")];
            assert!(of_family.contains(&bare.to_owned()), "{line} in {family}");
            assert!(bare.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()), "{line}");
            found.get_mut(&family).unwrap().1.push(line.to_owned());
        }
        found
    }

    #[test]
    fn kinds_and_samples_are_the_formats() {
        let mut report = Report {
            namespaces: vec![
                NamespaceReport { name: "a\"b\\c".into(), bytes_usage: 7, ..NamespaceReport::default() },
                NamespaceReport { name: "d".into(), ..NamespaceReport::default() },
            ],
            ..Report::default()
        };
        for _ in 0..4 {
            report.front.replied(OpCode::GetData, 2_500, 64);
        }
        report.pipeline.fsync_time.record_us(1_700);
        report.pipeline.batch_size.record(3);
        let found = families(&exposition(&ServerFacts::default(), &report, Some(&ProcessNow::default())));
        let lines = |name: &str| found[name].1.join("|");
        assert_eq!(found["packets_received"].0, "gauge");
        assert_eq!(found["op_count_get_data"].0, "counter");
        assert_eq!(lines("op_count_get_data"), "op_count_get_data 4.0");
        assert_eq!(lines("last_client_response_size"), "last_client_response_size 64.0");
        assert_eq!(
            lines("quota_bytes_usage_per_namespace"),
            "quota_bytes_usage_per_namespace{key=\"a\\\"b\\\\c\",} 7.0|quota_bytes_usage_per_namespace{key=\"d\",} 0.0"
        );
        assert_eq!(found["read_per_namespace"], ("summary".to_owned(), Vec::new()));
        // A median where there is a histogram, none where there are sums alone, NaN where there is nothing.
        assert_eq!(
            lines("fsynctime"),
            "fsynctime{quantile=\"0.5\",} 1.7|fsynctime_count 1.0|fsynctime_sum 1.7"
        );
        assert_eq!(
            lines("sync_processor_batch_size"),
            "sync_processor_batch_size_count 1.0|sync_processor_batch_size_sum 3.0"
        );
        assert_eq!(
            lines("election_time"),
            "election_time{quantile=\"0.5\",} NaN|election_time_count 0.0|election_time_sum 0.0"
        );
        let read = lines("readlatency");
        assert!(
            read.starts_with("readlatency{quantile=\"0.5\",} 2.5|readlatency{quantile=\"0.9\",} "),
            "{read}"
        );
        assert!(read.ends_with("|readlatency_count 4.0|readlatency_sum 10.0"), "{read}");
        assert_eq!(read.matches("quantile").count(), 4);
        assert_eq!(lines("jvm_memory_bytes_used"), "jvm_memory_bytes_used{area=\"heap\",} 0.0");
        let without = families(&exposition(&ServerFacts::default(), &report, None));
        assert!(without.keys().all(|name| !name.starts_with("jvm_m") && !name.starts_with("process_")));
    }
}
