//! One self-contained page of a run: tables, plots as SVG, the host. No script, nothing loaded; for phones and for paper.

use std::fmt::Write as _;

use plotters::prelude::*;
use serde_json::Value;

use crate::failure::{Context, Result};
use crate::report::{Run, Series, SeriesKind, metric_rows, unique, values};

/// Pixels a plot is drawn in; the page scales it.
const SIZE: (u32, u32) = (720, 340);
/// By server: told apart in print and by most colour-blind readers.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 94, 162),
    RGBColor(216, 96, 0),
    RGBColor(90, 90, 90),
    RGBColor(0, 128, 96),
    RGBColor(150, 40, 130),
];
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;color:#111;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem;border-top:1px solid #bbb;padding-top:1rem}\
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}\
td,th{padding:.15rem .6rem;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}\
td:first-child,th:first-child{text-align:left}.note{background:#fff3d6;padding:.4rem .7rem;margin:.5rem 0}\
svg{width:100%;height:auto;max-width:45rem;display:block;margin:.7rem 0}\
@media print{body{max-width:none;font-size:10pt}h2{break-after:avoid}svg,table{break-inside:avoid}.wide{overflow:visible}}";

/// The page of these runs, in the order of their scenarios.
pub fn page(runs: &[Run]) -> Result<String> {
    let mut html = String::new();
    html.push_str("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">");
    let _ = write!(html, "<title>ringkeeper-bench</title><style>{STYLE}</style></head><body>");
    html.push_str("<h1>Servers side by side</h1>");
    html.push_str(
        "<p>Each cell is the median of the repetitions and, in brackets, the least; a ratio is the median of the ratios within each \
         repetition and their range. The servers took turns on the same cores with the same durability: every write was flushed \
         before its answer. Server time is processor time of the server's processes, and holds on shared machines; throughput and \
         latency hold where nothing else ran. <code>echo</code> answers in the same sizes and does nothing: the machine's limit.</p>",
    );
    let all: Vec<&Run> = runs.iter().collect();
    let names = unique(all.iter().map(|run| run.server.as_str()));
    for scenario in unique(all.iter().map(|run| run.scenario.as_str())) {
        let of: Vec<&Run> = all.iter().copied().filter(|run| run.scenario == scenario).collect();
        section(&mut html, scenario, &of, &names).context(format_args!("cannot draw {scenario}"))?;
    }
    host(&mut html, runs);
    html.push_str("</body></html>\n");
    Ok(html)
}

fn section(html: &mut String, scenario: &str, runs: &[&Run], names: &[&str]) -> Result<()> {
    let _ = write!(html, "<h2>{}</h2>", escaped(scenario));
    for note in unique(runs.iter().flat_map(|run| run.outcome.notes.iter().map(String::as_str))) {
        let who = unique(
            runs.iter()
                .filter(|run| run.outcome.notes.iter().any(|other| other == note))
                .map(|run| run.server.as_str()),
        );
        let _ = write!(html, "<p class=\"note\">{}: {}</p>", escaped(&who.join(", ")), escaped(note));
    }
    let servers = unique(runs.iter().map(|run| run.server.as_str()));
    let colour = |server: &str| {
        let place = names.iter().position(|name| *name == server).unwrap_or(0);
        COLOURS[place % COLOURS.len()]
    };
    let costs: Vec<Bar> = servers.iter().filter_map(|server| Bar::of(runs, server, colour(server))).collect();
    if !costs.is_empty() {
        html.push_str(&bars("Server time per operation, µs: median, least and most", &costs)?);
    }
    // The last repetition: a virtual machine is warm by then.
    let last = |server: &str| {
        runs.iter().copied().filter(|run| run.server == server).max_by_key(|run| run.repetition)
    };
    let shown: Vec<(&str, &Run)> =
        servers.iter().filter_map(|server| Some((*server, last(server)?))).collect();
    for (kind, title, x, y) in [
        (SeriesKind::Latency, "latency", "share of answers", "µs"),
        (SeriesKind::Timeline, "over time", "s", "per second"),
    ] {
        let series = |run: &Run| {
            run.outcome.series.iter().filter(|series| series.kind == kind).cloned().collect::<Vec<_>>()
        };
        let drawn: Vec<Vec<Series>> = shown.iter().map(|(_, run)| series(run)).collect();
        for name in unique(drawn.iter().flatten().map(|series| series.name.as_str())) {
            let curves: Vec<(&str, RGBColor, &[(f64, f64)])> = shown
                .iter()
                .zip(&drawn)
                .filter_map(|((server, _), drawn)| {
                    let series = drawn.iter().find(|series| series.name == name)?;
                    (series.points.len() > 1).then(|| (*server, colour(server), series.points.as_slice()))
                })
                .collect();
            if !curves.is_empty() {
                html.push_str(&lines(&format!("{name}, {title}"), kind, x, y, &curves)?);
            }
        }
    }
    html.push_str("<div class=\"wide\"><table>");
    for (number, row) in metric_rows(runs, &servers).iter().enumerate() {
        let cell = if number == 0 { "th" } else { "td" };
        html.push_str("<tr>");
        for text in row {
            let _ = write!(html, "<{cell}>{}</{cell}>", escaped(text));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></div>");
    Ok(())
}

struct Bar {
    name: String,
    colour: RGBColor,
    least: f64,
    middle: f64,
    most: f64,
}

impl Bar {
    fn of(runs: &[&Run], server: &str, colour: RGBColor) -> Option<Bar> {
        let mut values: Vec<f64> =
            values(runs, server, "server time per operation").into_iter().map(|(_, value)| value).collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.get(values.len().checked_sub(1)? / 2)?;
        Some(Bar {
            name: server.to_owned(),
            colour,
            least: values[0],
            middle: *middle,
            most: values[values.len() - 1],
        })
    }
}

fn bars(title: &str, bars: &[Bar]) -> Result<String> {
    let top = bars.iter().map(|bar| bar.most).fold(f64::MIN_POSITIVE, f64::max) * 1.15;
    drawn(|root| {
        let mut chart = ChartBuilder::on(root)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..bars.len() as f64, 0.0..top)?;
        chart.configure_mesh().disable_x_mesh().x_labels(0).light_line_style(WHITE).draw()?;
        for (number, bar) in bars.iter().enumerate() {
            let (left, right, middle) = (number as f64 + 0.2, number as f64 + 0.8, number as f64 + 0.5);
            chart.draw_series([Rectangle::new([(left, 0.0), (right, bar.middle)], bar.colour.filled())])?;
            chart.draw_series([PathElement::new(
                vec![(middle, bar.least), (middle, bar.most)],
                BLACK.stroke_width(2),
            )])?;
            let label = format!("{}: {}", bar.name, crate::report::figure(bar.middle));
            chart.draw_series([Text::new(label, (left, bar.most + top * 0.06), ("sans-serif", 16))])?;
        }
        Ok(())
    })
}

fn lines(
    title: &str,
    kind: SeriesKind,
    x: &str,
    y: &str,
    curves: &[(&str, RGBColor, &[(f64, f64)])],
) -> Result<String> {
    // Latency: each step to the right is ten times fewer answers.
    let place = |share: f64| -(1.0 - share).max(1e-9).log10();
    let points: Vec<Vec<(f64, f64)>> = curves
        .iter()
        .map(|(_, _, points)| match kind {
            SeriesKind::Latency => points.iter().map(|(share, us)| (place(*share), us.max(0.001))).collect(),
            SeriesKind::Timeline => points.to_vec(),
        })
        .collect();
    let all = || points.iter().flatten();
    let least = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(f64::INFINITY, f64::min);
    let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(f64::NEG_INFINITY, f64::max);
    let (left, right) = (least(|point| point.0), most(|point| point.0).max(least(|point| point.0) + 1e-6));
    let (low, high) = (least(|point| point.1), most(|point| point.1).max(1e-3));
    drawn(|root| {
        let mut builder = ChartBuilder::on(root);
        builder.caption(title, ("sans-serif", 18)).margin(10).x_label_area_size(40).y_label_area_size(75);
        // Where the curves are not: latency rises to the right, a timeline has room above.
        let legend = match kind {
            SeriesKind::Latency => SeriesLabelPosition::LowerRight,
            SeriesKind::Timeline => SeriesLabelPosition::UpperRight,
        };
        // The two scales are two types; what is drawn on them is the same.
        macro_rules! draw {
            ($chart:expr, $format:expr) => {{
                let mut chart = $chart;
                chart
                    .configure_mesh()
                    .x_desc(x)
                    .y_desc(y)
                    .x_label_formatter(&$format)
                    .light_line_style(WHITE)
                    .draw()?;
                for ((server, colour, _), points) in curves.iter().zip(&points) {
                    let colour = *colour;
                    chart
                        .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                        .label(*server)
                        .legend(move |(x, y)| {
                            PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3))
                        });
                }
                chart.configure_series_labels().position(legend).background_style(WHITE.mix(0.8)).draw()?;
            }};
        }
        match kind {
            SeriesKind::Latency => draw!(
                builder.build_cartesian_2d(left..right, (low..high * 1.3).log_scale())?,
                |place: &f64| {
                    let share = 100.0 * (1.0 - 10f64.powf(-place));
                    let digits = (place.ceil() as usize).saturating_sub(2);
                    format!("{share:.digits$} %")
                }
            ),
            SeriesKind::Timeline => {
                draw!(builder.build_cartesian_2d(left..right, 0.0..high * 1.35)?, |second: &f64| format!(
                    "{second:.1}"
                ))
            }
        }
        Ok(())
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn drawn(
    draw: impl FnOnce(&Area<'_>) -> std::result::Result<(), Box<dyn std::error::Error>>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).context("cannot draw")?;
        draw(&root).context("cannot draw")?;
        root.present().context("cannot draw")?;
    }
    // The page's own style says how wide; the picture keeps its proportions by its view box.
    Ok(svg.replacen(&format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1), "", 1))
}

fn host(html: &mut String, runs: &[Run]) {
    html.push_str("<h2>Where and when</h2><div class=\"wide\"><table>");
    let mut row = |name: &str, value: &Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = write!(
            html,
            "<tr><td>{}</td><td style=\"text-align:left\">{}</td></tr>",
            escaped(name),
            escaped(&text)
        );
    };
    if let Some(Value::Object(facts)) = runs.first().map(|run| &run.host) {
        facts.iter().for_each(|(name, value)| row(name, value));
    }
    let details: Vec<(&str, String)> =
        runs.iter().map(|run| (run.server.as_str(), run.server_details.to_string())).collect();
    for text in unique(details.iter().map(|(_, text)| text.as_str())) {
        let server = details.iter().find(|(_, other)| other == text).map_or("", |(server, _)| server);
        row(server, &Value::String(text.to_owned()));
    }
    html.push_str("</table></div>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;

    #[test]
    fn a_page_holds_its_plots_and_nothing_from_elsewhere() {
        let run = |server: &str, repetition: usize| {
            let mut outcome = Outcome::default();
            outcome.add("server time per operation", "us", 1.5 * repetition as f64);
            outcome.note("a <note>");
            for (kind, points) in [
                (SeriesKind::Latency, vec![(0.0, 10.0), (0.9, 20.0), (0.999, 400.0)]),
                (SeriesKind::Timeline, vec![(0.0, 100.0), (0.1, 0.0)]),
            ] {
                outcome.series.push(Series { name: "getData".into(), kind, points });
            }
            Run {
                scenario: "reads & writes".into(),
                parameters: Value::Null,
                server: server.into(),
                server_details: Value::Null,
                repetition,
                outcome,
                host: serde_json::json!({ "cpu": "x" }),
            }
        };
        let html = page(&[run("a", 1), run("b", 1), run("a", 2), run("b", 2)]).unwrap();
        assert_eq!(html.matches("<svg").count(), 3);
        assert!(html.contains("reads &amp; writes") && html.contains("a &lt;note&gt;"));
        assert!(
            !html.contains("<script")
                && !html.contains("src=")
                && !html.contains("width=\"720\" height=\"340\" view")
        );
    }
}
