//! What a run shows while it goes on: a bar and one changing line on a terminal, plain lines otherwise.

use crate::{
    clock::SECOND,
    run::{Second, Settings, Watcher},
    units::{show_count, show_nanos},
};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, Write};

/// Shows a run on standard error.
#[derive(Debug)]
pub enum Live {
    /// Nothing at all.
    Quiet,
    /// One line a second.
    Lines,
    /// A bar that is drawn over.
    Bar(ProgressBar),
}

impl Live {
    /// What suits standard error; `seconds` is the length of the run, 0 if it is not known.
    pub fn new(quiet: bool, seconds: u64) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() || seconds == 0 {
            return Self::Lines;
        }
        let style =
            ProgressStyle::with_template("{bar:24} {pos:>3}/{len} s  {msg}").expect("a constant template");
        Self::Bar(ProgressBar::new(seconds).with_style(style))
    }

    /// For one run with these settings.
    pub fn of(settings: &Settings, quiet: bool) -> Self {
        Self::new(quiet, (settings.phases.warmup + settings.phases.duration).div_ceil(SECOND))
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// A line on standard error. One that nobody takes is no reason to end.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Watcher for Live {
    fn second(&mut self, second: &Second) {
        let quantile = |q| show_nanos(second.response.value_at_quantile(q));
        let text = format!(
            "{:>9} ops/s  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  errors {}  in flight {}{}",
            show_count(second.response.len()),
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            show_count(second.failed),
            show_count(second.in_flight),
            if second.warmup { "  (warm-up)" } else { "" },
        );
        match self {
            Self::Quiet => {}
            Self::Lines => tell(&format!("{:>4} s  {text}", second.index + 1)),
            Self::Bar(bar) => {
                bar.set_position(second.index + 1);
                bar.set_message(text);
            }
        }
    }

    fn step(&mut self, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Lines => tell(text),
            Self::Bar(bar) => bar.set_message(text.to_owned()),
        }
    }
}
