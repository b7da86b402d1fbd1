use std::process::ExitCode;

use clap::Parser;
use flapsam::commands::{Flapsam, Outcome};

fn main() -> ExitCode {
    match Flapsam::parse().run() {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("flapsam: {error}");
            ExitCode::from(2)
        }
    }
}
