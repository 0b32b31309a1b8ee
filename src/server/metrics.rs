//! Prometheus' endpoint: `/metrics` on a port of its own, beside the data path like the admin server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::http::{self, Handler, Request, Response};
use super::questions::Questioner;
use super::{Shell, admin, gauges};
use crate::admin::{Answer, What, prometheus};
use crate::config::{Config, MetricsClass};
use crate::metrics::ProcessGauges;
use crate::words::{ServerFacts, Word};

/// How long a scraper's connection may be silent: above the usual intervals. Source: Jetty's default is half of it.
const IDLE: Duration = Duration::from_secs(60);

/// Opens the port where the configuration names the Prometheus provider. Fails if a thread cannot be made.
pub(super) fn start(config: &Config, shell: &Shell, process: Arc<ProcessGauges>) -> io::Result<()> {
    let provider = &config.metrics_provider;
    if provider.class != MetricsClass::Prometheus {
        return Ok(());
    }
    let listener =
        admin::listen("the Prometheus endpoint", "metricsProvider.httpHost", &provider.http_address);
    let Some(listener) = listener else { return Ok(()) };
    tracing::info!("Started metrics on http://{}/metrics", listener.local_addr()?);
    let endpoint = Endpoint {
        facts: ServerFacts::of(config, Vec::new(), process),
        exports_process: provider.export_jvm_info,
        questioner: shell.questioner(),
    };
    http::serve("metrics", listener, IDLE, Arc::new(endpoint))
}

struct Endpoint {
    facts: ServerFacts,
    exports_process: bool,
    questioner: Questioner,
}

impl Handler for Endpoint {
    fn handle(&self, request: &Request) -> Response {
        if request.path != "/metrics" {
            return Response::plain(404);
        }
        if request.method == "POST" {
            return Response::plain(405).header("Allow", "GET, HEAD".into());
        }
        let Some(Answer::Report(report)) =
            self.questioner.ask(What::Report { word: Word::Mntr, argument: 0 })
        else {
            return Response::plain(503);
        };
        let process = self.exports_process.then(gauges::process_now);
        let text = prometheus::exposition(&self.facts, &report, process.as_ref());
        Response::new(200, prometheus::CONTENT_TYPE, text)
    }
}
