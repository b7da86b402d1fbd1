//! The program `flapsam`.

use std::process::ExitCode;

use clap::Parser;
use flapsam::commands::{Flapsam, Outcome};

/// Tensors come and go by the megabyte; the system's allocator hands each back to the kernel, at a tenth of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Free memory stays with the program for so long, milliseconds: a training step takes again what the one before gave back,
/// and pages that the kernel has to clear anew were a fifth of a step's time.
const KEEP_FREE_MEMORY: i64 = 60_000;

fn keep_free_memory() {
    /// `mi_option_purge_delay` of mimalloc's header, which its bindings leave out.
    const PURGE_DELAY: i32 = 15;
    // SAFETY: it sets a number, before any other thread is there; MIMALLOC_PURGE_DELAY goes before it.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_FREE_MEMORY as _) };
}

fn main() -> ExitCode {
    keep_free_memory();
    // A reader that stops reading, as `head` does, ends the program quietly.
    sigpipe::reset();
    match Flapsam::parse().run() {
        Ok(Outcome::Passed) => ExitCode::SUCCESS,
        Ok(Outcome::CheckFailed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("flapsam: {}", flapsam::printable(&error.to_string()));
            ExitCode::from(2)
        }
    }
}
