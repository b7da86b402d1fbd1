use std::process::ExitCode;

use clap::Parser;
use flapsam::commands::{Flapsam, Outcome};

/// Tensors come and go by the megabyte; the system's allocator hands each back to the kernel, at a tenth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A reader that stops reading, as `head` does, ends the program quietly.
    sigpipe::reset();
    match Flapsam::parse().run() {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("flapsam: {error}");
            ExitCode::from(2)
        }
    }
}
