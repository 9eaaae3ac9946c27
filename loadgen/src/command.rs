//! From the command line to the exit code: 0 all is well, 1 a check or a budget failed, 2 it could not be done.

use crate::{
    args::CommandLine,
    report::Report,
    run::{self, Second, Watcher},
    units::{show_count, show_nanos},
};
use anyhow::Context;
use std::{
    io::Write,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done; the text says what to write instead.
pub fn execute(line: CommandLine) -> anyhow::Result<ExitCode> {
    let arguments = line.run;
    let settings = arguments.settings()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let mut watcher = Lines { quiet: arguments.quiet };
    let outcome = run::run(&settings, stop, &mut watcher)?;
    let report = Report::new(&settings, &outcome);
    let to_stdout = arguments.json.as_deref().is_some_and(|path| path.as_os_str() == "-");
    if !to_stdout {
        println!("{}", report.table());
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        if to_stdout {
            writeln!(std::io::stdout(), "{text}")?;
        } else {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(if report.verified() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Plain lines while a run goes on.
struct Lines {
    quiet: bool,
}

impl Watcher for Lines {
    fn second(&mut self, second: &Second) {
        if self.quiet {
            return;
        }
        let quantile = |q| show_nanos(second.response.value_at_quantile(q));
        eprintln!(
            "{:>4} s{} {:>10} ops/s  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}  errors {}  in flight {}",
            second.index + 1,
            if second.warmup { " (warm-up)" } else { "" },
            show_count(second.response.len()),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            show_nanos(second.response.max()),
            show_count(second.failed),
            show_count(second.in_flight),
        );
    }

    fn step(&mut self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
}
