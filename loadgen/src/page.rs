//! The report as one HTML file: everything inline, nothing loaded from anywhere.

use crate::{
    chart::{Axes, Scale, Series, draw, whole_step},
    facts::changes,
    report::{Latency, OperationResult, Report, SecondResult},
    units::{show_count, show_nanos, three_digits},
};
use std::fmt::Write;

/// Longest text of a mix that makes a heading.
const TITLE_CHARS: usize = 48;

const STYLE: &str = "\
body{font:15px/1.45 system-ui,sans-serif;color:#222;max-width:980px;margin:2em auto;padding:0 1em}\
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin:1.8em 0 .4em}\
p.about{color:#555;margin:.1em 0}\
.cards{display:flex;flex-wrap:wrap;gap:.8em;margin:1.2em 0}\
.card{border:1px solid #ddd;border-radius:6px;padding:.5em .9em;min-width:6.5em}\
.card b{display:block;font-size:1.25em}.card span{color:#666;font-size:.85em}\
table{border-collapse:collapse;width:100%;font-size:.9em}\
th,td{padding:.28em .6em;text-align:right;border-bottom:1px solid #e5e5e5}\
th:first-child,td:first-child{text-align:left}th{color:#555;font-weight:600}\
.chart,.wide{overflow-x:auto}svg{display:block;width:100%;min-width:620px;height:auto}\
p.legend{margin:.2em 0;font-size:.85em}p.legend span{display:inline-block;margin-right:1.1em}\
p.legend i{display:inline-block;width:1.3em;height:.2em;margin-right:.4em;vertical-align:middle}\
p.mix{font-family:ui-monospace,monospace;overflow-wrap:anywhere}h1{overflow-wrap:anywhere}\
.note{background:#fff6dd;border-left:4px solid #e6a100;padding:.5em .8em;margin:.5em 0}\
.bad{background:#fde8e6;border-left:4px solid #c0392b;padding:.5em .8em;margin:.5em 0}";

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut out = String::new();
    let title = format!("loadgen: {}", escape(&title(report)));
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><style>{STYLE}</style></head><body>\
         <h1>{title}</h1>"
    );
    about(&mut out, report);
    cards(&mut out, report);
    for remark in &report.remarks {
        let _ = write!(out, "<div class=\"note\">{}</div>", escape(remark));
    }
    verification(&mut out, report);
    charts(&mut out, report);
    operations(&mut out, report);
    failures(&mut out, report);
    server(&mut out, report);
    out.push_str("</body></html>\n");
    out
}

/// What fits on a line: how much of how many operations; what they are stands beneath it.
fn title(report: &Report) -> String {
    let text = mix_text(report);
    if text.len() <= TITLE_CHARS {
        return text;
    }
    let operations = report.load.mixes.iter().map(|(mix, _)| mix.split(',').count()).sum::<usize>();
    let rate: Option<f64> = report.load.mixes.iter().map(|(_, rate)| *rate).sum();
    match rate {
        Some(rate) => format!("a mix of {operations} operations at {}/s", show_count(rate as u64)),
        None => format!("a mix of {operations} operations, closed loop"),
    }
}

/// The mix, unless the heading has said it.
fn mix_line(report: &Report) -> String {
    let text = mix_text(report);
    if text == title(report) {
        return String::new();
    }
    format!("<p class=\"about mix\">{}</p>", escape(&text))
}

fn mix_text(report: &Report) -> String {
    let parts: Vec<String> = report
        .load
        .mixes
        .iter()
        .map(|(mix, rate)| match rate {
            Some(rate) => format!("{mix} at {}/s", show_count(*rate as u64)),
            None => mix.clone(),
        })
        .collect();
    parts.join(" + ")
}

fn about(out: &mut String, report: &Report) {
    let load = &report.load;
    let loop_text = match (load.loop_kind.as_str(), load.poisson) {
        ("closed", _) => format!("closed loop, {} in flight on each", load.in_flight),
        (_, true) => "open loop with Poisson arrivals".to_owned(),
        _ => "open loop with equal gaps".to_owned(),
    };
    let _ = write!(
        out,
        "{}<p class=\"about\">{} on {} connections to {}; values of {} bytes; {} znodes, {} keys; measured for {} s{}; \
         seed {}.</p>",
        mix_line(report),
        escape(&loop_text),
        load.connections,
        escape(&load.hosts),
        if load.value_bytes.0 == load.value_bytes.1 {
            load.value_bytes.0.to_string()
        } else {
            format!("{} to {}", load.value_bytes.0, load.value_bytes.1)
        },
        show_count(load.znodes),
        escape(&load.keys),
        three_digits(report.seconds),
        if report.interrupted { " (ended early)" } else { "" },
        load.seed,
    );
    let machine = &report.machine;
    let _ = write!(
        out,
        "<p class=\"about\">Generator: {} CPUs ({}), {} GB, {}, disk {}; loadgen {}.</p>",
        machine.cpus,
        escape(&machine.cpu),
        three_digits(machine.memory_bytes as f64 / 1e9),
        escape(&machine.kernel),
        escape(&machine.disk),
        escape(&report.loadgen_version),
    );
}

fn cards(out: &mut String, report: &Report) {
    let latency = &report.total.response_ns;
    let mut cards = vec![
        (show_count(report.total.rate.round() as u64), "operations a second"),
        (show_nanos(latency.p50), "p50"),
        (show_nanos(latency.p99), "p99"),
        (show_nanos(latency.p999), "p99.9"),
        (show_nanos(latency.max), "max"),
        (show_count(report.total.failed), "errors"),
    ];
    if let Some(cpu) = report.server_cpu_ns_per_operation {
        cards.push((format!("{} us", three_digits(cpu / 1e3)), "server CPU per operation"));
    }
    if let Some(bytes) = report.server_resident_bytes {
        cards.push((format!("{} MB", three_digits(bytes as f64 / 1e6)), "server memory"));
    }
    cards.push((
        format!("{} us", three_digits(report.client_cpu_ns_per_operation / 1e3)),
        "generator CPU per operation",
    ));
    out.push_str("<div class=\"cards\">");
    for (value, name) in cards {
        let _ = write!(out, "<div class=\"card\"><b>{value}</b><span>{name}</span></div>");
    }
    out.push_str("</div>");
}

fn verification(out: &mut String, report: &Report) {
    let Some(found) = &report.verification else { return };
    if found.violations.is_empty() {
        let _ = write!(out, "<p>Verified: {} facts compared, none violated.</p>", show_count(found.checks));
    }
    for (kind, (count, examples)) in &found.violations {
        let _ = write!(
            out,
            "<div class=\"bad\">{} times: {}. Such as {}</div>",
            show_count(*count),
            escape(kind),
            escape(&examples.join("; "))
        );
    }
}

fn charts(out: &mut String, report: &Report) {
    let line = |name: &str, seconds: &[&SecondResult], of: &dyn Fn(&SecondResult) -> f64| Series {
        name: name.to_owned(),
        points: seconds.iter().map(|second| (report.end_of(second), of(second))).collect(),
    };
    let all: Vec<&SecondResult> = report.timeline.iter().collect();
    // A second that is cut short by an end, or has no more than late answers, would show a drop that was none.
    let fraction = report.load.warmup_seconds.fract() > 0.0;
    let warmup = report.timeline.iter().filter(|s| s.warmup && !(fraction && s.second == 0));
    let whole: Vec<&SecondResult> = warmup.chain(report.whole_seconds()).collect();
    let answered: Vec<&SecondResult> = report.timeline.iter().filter(|second| second.succeeded > 0).collect();
    let y_count: &dyn Fn(f64) -> String = &|y: f64| show_count(y.round() as u64);
    let y_time: &dyn Fn(f64) -> String = &|y: f64| show_nanos(y as u64);
    let x_name = match report.load.warmup_seconds {
        0.0 => "seconds since the begin".to_owned(),
        warmup => format!("seconds since the begin (the first {} are warm-up)", three_digits(warmup)),
    };
    let axes_of = |y_name, y_label, scale| Axes {
        x_name: &x_name,
        y_name,
        x_label: &|x| format!("{x:.0}"),
        y_label,
        scale,
        x_step: |most| whole_step(most, 10),
    };
    let count_axes = |y_name| axes_of(y_name, y_count, Scale::Counts);
    let a_second = |of: u64, second: &SecondResult| of as f64 / second.width as f64;
    section(
        out,
        "Throughput over time",
        &draw(&[line("answered", &whole, &|s| a_second(s.succeeded, s))], &count_axes("operations a second")),
    );
    let latencies = [
        line("p50", &answered, &|s| s.response_ns.p50 as f64),
        line("p99", &answered, &|s| s.response_ns.p99 as f64),
        line("p99.9", &answered, &|s| s.response_ns.p999 as f64),
        line("max", &answered, &|s| s.response_ns.max as f64),
    ];
    section(out, "Latency over time", &draw(&latencies, &axes_of("response time", y_time, Scale::Decades)));
    curves(out, report);
    section(
        out,
        "Requests in flight",
        &draw(&[line("in flight", &all, &|s| s.in_flight as f64)], &count_axes("requests")),
    );
    if report.timeline.iter().any(|second| second.failed > 0) {
        // All of them: errors come last of all, when the patience with a server is over.
        section(
            out,
            "Errors over time",
            &draw(&[line("errors", &all, &|s| a_second(s.failed, s))], &count_axes("errors a second")),
        );
    }
}

/// A heading and what is beneath it; without anything beneath it, a sentence.
fn section(out: &mut String, heading: &str, chart: &str) {
    let chart =
        if chart.is_empty() { "<p class=\"about\">Too short a run to draw anything.</p>" } else { chart };
    let _ = write!(out, "<h2>{heading}</h2>{chart}");
}

/// Operations with a curve of their own: as many as can be told apart.
const CURVES_LIMIT: usize = 5;

/// Percentile curves: x counts nines, so that the tail has as much room as the rest.
fn curves(out: &mut String, report: &Report) {
    let line = |name: &str, curve: &[(f64, u64)]| Series {
        name: name.to_owned(),
        points: curve.iter().map(|(q, nanos)| (-(1.0 - q).log10(), *nanos as f64)).collect(),
    };
    let mut series = Vec::new();
    if report.load.loop_kind == "open" {
        series.push(line("response time (from the intended send)", &report.total.response_curve));
        series.push(line("service time (from the actual send)", &report.total.service_curve));
    } else {
        series.push(line("all", &report.total.service_curve));
    }
    if report.operations.len() > 1 {
        let mut busiest: Vec<_> = report.operations.iter().collect();
        busiest.sort_by_key(|(_, result)| std::cmp::Reverse(result.succeeded));
        for (name, result) in busiest.into_iter().take(CURVES_LIMIT) {
            series.push(line(name, &result.response_curve));
        }
    }
    let axes = Axes {
        x_name: "percentile",
        y_name: "latency",
        x_label: &|x| three_nines(x),
        y_label: &|y| show_nanos(y as u64),
        scale: Scale::Decades,
        x_step: |_| 1.0,
    };
    section(out, "Latency by percentile", &draw(&series, &axes));
    let kinds = report.operations.len();
    if kinds > CURVES_LIMIT {
        let _ = writeln!(
            out,
            "<p class=\"about\">Curves of the {CURVES_LIMIT} most frequent of {kinds} operations; the table below has all.</p>"
        );
    }
}

/// 1 is 90%, 2 is 99%.
fn three_nines(nines: f64) -> String {
    let percent = 100.0 * (1.0 - 10_f64.powf(-nines));
    let digits = (nines - 1.5).ceil().clamp(0.0, 6.0) as usize;
    format!("{percent:.digits$}%")
}

fn operations(out: &mut String, report: &Report) {
    out.push_str(
        "<h2>Operations</h2><div class=\"wide\"><table><tr><th>operation</th><th>count</th><th>a second</th><th>errors</th><th>p50</th><th>p90</th>\
         <th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th></tr>",
    );
    let mut row = |name: &str, result: &OperationResult, latency: &Latency| {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            escape(name),
            show_count(result.succeeded),
            show_count(result.rate.round() as u64),
            show_count(result.failed)
        );
        for value in [latency.p50, latency.p90, latency.p99, latency.p999, latency.p9999, latency.max] {
            let _ = write!(out, "<td>{}</td>", show_nanos(value));
        }
        out.push_str("</tr>");
    };
    for (name, result) in &report.operations {
        row(name, result, &result.response_ns);
    }
    row("all", &report.total, &report.total.response_ns);
    if report.load.loop_kind == "open" {
        row("all, service time", &report.total, &report.total.service_ns);
    }
    out.push_str("</table></div>");
}

fn failures(out: &mut String, report: &Report) {
    if report.failures.is_empty() {
        return;
    }
    out.push_str("<h2>Errors by code</h2><div class=\"wide\"><table><tr><th>operation</th><th>code</th><th>count</th></tr>");
    for failure in &report.failures {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&failure.operation),
            escape(&failure.name),
            show_count(failure.count)
        );
    }
    out.push_str("</table></div>");
}

fn server(out: &mut String, report: &Report) {
    let rows = changes(&report.server_before, &report.server_after);
    if rows.is_empty() {
        out.push_str("<p>The server answers no <code>mntr</code> (4lw.commands.whitelist), so nothing is known of it.</p>");
        return;
    }
    out.push_str(
        "<h2>What the server says (mntr)</h2><div class=\"wide\"><table><tr><th>figure</th><th>before</th><th>after</th></tr>",
    );
    for (name, before, after) in rows {
        let _ = write!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&name),
            escape(&before),
            escape(&after)
        );
    }
    out.push_str("</table></div>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn nines_are_labelled_as_percentiles() {
        let shown: Vec<String> = [0.0, 1.0, 2.0, 3.0, 4.0].iter().map(|x| three_nines(*x)).collect();
        assert_eq!(shown, ["0%", "90%", "99.0%", "99.90%", "99.990%"]);
    }

    fn report(mix: &str) -> Report {
        let words = ["loadgen", "--rate", "5k/s", "--mix", mix, "--warmup", "1500ms", "-d", "3500ms"];
        let settings = crate::args::CommandLine::try_parse_from(words).unwrap().run.settings().unwrap();
        let mut report = Report::new(&settings, &crate::run::Outcome::default());
        report.seconds = 3.5;
        let latency = Latency { p50: 400_000, p99: 900_000, ..report.total.response_ns.clone() };
        report.timeline = (0..6)
            .map(|second| SecondResult {
                second,
                width: 1,
                warmup: second < 2,
                succeeded: 5_000,
                failed: if second == 5 { 40 } else { 0 },
                in_flight: 3,
                response_ns: latency.clone(),
            })
            .collect();
        report.total.failed = 40;
        report
    }

    /// The points of the first line in the chart beneath this heading.
    fn points(page: &str, heading: &str) -> usize {
        let chart = &page[page.find(&format!("<h2>{heading}</h2>")).unwrap()..];
        let chart = &chart[..chart.find("</svg>").unwrap()];
        let lines = chart.split("<polyline").filter(|line| line.contains("stroke=\"#0072B2\""));
        let points = lines.filter_map(|line| line.split("points=\"").nth(1)?.split('"').next());
        points.map(|points| points.split_whitespace().count()).max().unwrap()
    }

    /// Danger: the errors of the last second, when patience ends, are not in the picture; throughput seems to fall where
    /// only the run ends.
    #[test]
    fn each_chart_has_the_seconds_that_it_can_show() {
        let page = page(&report("set=1,get=2"));
        assert_eq!(points(&page, "Errors over time"), 6, "all of them");
        assert_eq!(
            points(&page, "Throughput over time"),
            4,
            "the whole ones: 1 of the warm-up and 3 behind it"
        );
        assert_eq!(points(&page, "Latency over time"), 6);
    }

    /// A heading is a line, and says something.
    #[test]
    fn headings_are_short_and_none_is_empty() {
        let mix = "create=1,create-seq=1,set=1,get=1,exists=1,children=1,delete=1,multi=1,ephemeral=1,sync=1";
        let page = page(&report(mix));
        assert!(page.contains("<h1>loadgen: a mix of 10 operations at 5,000/s</h1>"), "{}", &page[..2_000]);
        assert!(page.contains(mix), "what they are stands beneath it");
        let short = super::page(&report("set=1,get=2"));
        assert_eq!(short.matches("set=1,get=2 at 5,000/s").count(), 2, "in the title and the heading alone");
        assert!(!page.contains("<th></th>") && !page.contains("<h2></h2>"));
        for heading in page.split("<h2>").skip(1) {
            let behind = &heading[heading.find("</h2>").unwrap() + 5..];
            assert!(!behind.starts_with("<h2>") && !behind.starts_with("<div class=\"chart\"></div>"));
        }
    }

    /// An error text comes from a server and must not become part of the page's code.
    #[test]
    fn text_is_escaped() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}
