//! The command `loadgen`.

use clap::Parser;
use loadgen::{args::CommandLine, command, live::tell};
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match command::execute(line) {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("loadgen: {error:#}"));
            ExitCode::from(2)
        }
    }
}
