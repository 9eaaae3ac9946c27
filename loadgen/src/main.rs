//! The command `loadgen`.

use clap::Parser;
use loadgen::{args::CommandLine, command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match command::execute(line) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}
