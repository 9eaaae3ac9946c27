//! From the command line to the exit code: 0 all is well, 1 a check or a budget failed, 2 it could not be done.

use crate::{
    args::{Command, CommandLine, CompareArgs, FindMaxArgs, RunArgs, ScenarioArgs},
    clock::nanos,
    compare, find_max,
    find_max::{Objective, Search},
    hdr_log::interval_log,
    layout,
    live::{Live, tell},
    page::page,
    report::Report,
    run, scenario,
};
use anyhow::{Context, ensure};
use serde::Serialize;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done; the text says what to write instead.
pub fn execute(line: CommandLine) -> anyhow::Result<ExitCode> {
    let good = match line.command {
        None => run_once(&line.run)?,
        Some(Command::FindMax(arguments)) => find(*arguments)?,
        Some(Command::Scenario(arguments)) => run_scenario(&arguments)?,
        Some(Command::Compare(arguments)) => compare_runs(&arguments)?,
    };
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Set by the first Ctrl-C, which ends the run with the results so far; the second ends the process.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    Ok(stop)
}

/// A result that cannot be written must be known before the run, not after it.
fn check_outputs<'a>(paths: impl IntoIterator<Item = &'a Option<PathBuf>>) -> anyhow::Result<()> {
    for path in paths.into_iter().flatten().filter(|path| path.as_os_str() != "-") {
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        opened.with_context(|| {
            format!("cannot write {}; name a file in a directory that exists", path.display())
        })?;
    }
    Ok(())
}

fn run_once(arguments: &RunArgs) -> anyhow::Result<bool> {
    let settings = arguments.settings()?;
    check_outputs([&arguments.json, &arguments.html, &arguments.hlog])?;
    compare::check_alone(&arguments.fail_if, !arguments.pid.is_empty())?;
    let mut live = Live::of(&settings, arguments.quiet);
    let outcome = run::run(&settings, stop_on_signals()?, &mut live)?;
    live.finish();
    let report = Report::new(&settings, &outcome);
    let to_stdout = arguments.json.as_deref().is_some_and(|path| path.as_os_str() == "-");
    // Each on its own: one that cannot be written takes no other with it. Standard output, which may be gone, is last.
    let mut written = Vec::new();
    if let Some(path) = &arguments.html {
        written.push(write_file(path, page(&report).as_bytes()));
    }
    if let Some(path) = &arguments.hlog {
        written
            .push(interval_log(&outcome.timeline, outcome.began).and_then(|bytes| write_file(path, &bytes)));
    }
    if let Some(path) = &arguments.json {
        written.push(write_json(path, &report));
    }
    if !to_stdout {
        written.push(print(report.table().trim_end()));
    }
    let failed = compare::exceeded_alone(&report, &arguments.fail_if)?;
    for budget in &failed {
        tell(&format!("loadgen: over budget: {budget}"));
    }
    if let Some(why) = report.failed() {
        tell(&format!("loadgen: the run has failed: {why}"));
    }
    written.into_iter().collect::<anyhow::Result<()>>()?;
    let good = report.failed().is_none() && report.verified();
    Ok(good && failed.is_empty() && outcome.troubles.is_empty())
}

fn find(mut arguments: FindMaxArgs) -> anyhow::Result<bool> {
    ensure!(!arguments.run.closed, "find-max looks for a rate; a closed loop has none");
    let (quantile, limit) = match (arguments.p50, arguments.p99, arguments.p999) {
        (Some(limit), _, _) => (0.5, limit),
        (_, _, Some(limit)) => (0.999, limit),
        (_, limit, _) => (0.99, limit.context("say what must hold, such as --p99 5ms")?),
    };
    ensure!(
        (0.1..=100.0).contains(&arguments.precision),
        "--precision lies between 0.1 and 100 (percent), such as --precision 5"
    );
    ensure!(arguments.from <= arguments.most, "--from is not above --most, the highest rate that is tried");
    let run = &mut arguments.run;
    match (run.rate, &run.mix, run.writes, run.reads) {
        (None, None, None, None) => run.writes = Some(1.0),
        (None, Some(_), _, _) => run.rate = Some(1.0),
        _ => {}
    }
    for (given, name) in [
        (run.html.is_some(), "--html"),
        (run.hlog.is_some(), "--hlog"),
        (!run.fail_if.is_empty(), "--fail-if"),
    ] {
        ensure!(!given, "find-max has no {name}; run loadgen once more at the rate that it finds");
    }
    // The nodes serve every step.
    run.keep = true;
    let settings = arguments.run.settings()?;
    check_outputs([&arguments.run.json])?;
    let objective = Objective { quantile, limit: nanos(limit) };
    let search =
        Search { from: arguments.from, most: arguments.most, precision: arguments.precision / 100.0 };
    let mut live = Live::new(arguments.run.quiet, 0);
    let steps = find_max::find_max(&settings, objective, search, &stop_on_signals()?, &mut live)?;
    if let Some(path) = &arguments.run.json {
        let reports: Vec<&Report> = steps.iter().map(|step| &step.report).collect();
        write_json(path, &reports)?;
    }
    let printed = print(find_max::show(&steps, objective).trim_end());
    let mut client = run::connect_any(&settings.hosts, settings.timeout_ms)?;
    layout::remove(&mut client, &settings.plan.root)?;
    client.close();
    printed?;
    let holds = steps.iter().any(|step| step.verdict == find_max::Verdict::Holds);
    Ok(holds && find_max::bounded_by_generator(&steps).is_none())
}

fn run_scenario(arguments: &ScenarioArgs) -> anyhow::Result<bool> {
    let Some(name) = &arguments.name else {
        for scenario in scenario::SCENARIOS {
            print(&format!("{:<26}{}", scenario.name, scenario.about))?;
        }
        return Ok(true);
    };
    let scenario = scenario::find(name)?;
    check_outputs([&arguments.json])?;
    let mut live = Live::new(arguments.quiet, 0);
    let outcome = scenario::run(scenario, arguments, &stop_on_signals()?, &mut live)?;
    if let Some(path) = &arguments.json {
        write_json(path, &outcome)?;
    }
    if arguments.json.as_deref().is_none_or(|path| path.as_os_str() != "-") {
        print(outcome.show().trim_end())?;
    }
    Ok(outcome.is_clean())
}

fn compare_runs(arguments: &CompareArgs) -> anyhow::Result<bool> {
    let (before, after) = compare::read_both(&arguments.before, &arguments.after)?;
    let lines = compare::compare(&before, &after)?;
    print(compare::show(&lines, (before.len(), after.len())).trim_end())?;
    for difference in compare::unlike(&before, &after) {
        print(&format!("note: the loads differ in {difference}"))?;
    }
    let dead = compare::dead(&before, &after);
    for run in &dead {
        tell(&format!("loadgen: nothing to compare: {run}"));
    }
    if !dead.is_empty() && !arguments.fail_if.is_empty() {
        return Ok(false);
    }
    compare::check_runs((before.len(), after.len()), &arguments.fail_if, arguments.by_blocks)?;
    compare::check_power(&lines, &arguments.fail_if)?;
    let failed = compare::exceeded(&lines, &arguments.fail_if);
    for budget in &failed {
        tell(&format!("loadgen: over budget: {budget}"));
    }
    Ok(failed.is_empty())
}

/// Text and a line end on standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    taken(writeln!(stdout, "{text}").and_then(|()| stdout.flush()))
}

/// A reader that has seen enough (`| head`) is no failure of the run; a full disk is.
fn taken(written: std::io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write the results to standard output")
        }
        _ => Ok(()),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    if path.as_os_str() == "-" {
        return print(&text);
    }
    write_file(path, text.as_bytes())
}

fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
