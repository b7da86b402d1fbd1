//! Names the commit that the program is built from, for the provenance of its runs.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/refs/heads");
    let output = Command::new("git").args(["rev-parse", "HEAD"]).output();
    // Without git, as in a source archive, the commit stays unknown.
    if let Some(output) = output.ok().filter(|output| output.status.success()) {
        println!(
            "cargo::rustc-env=FLAPSAM_COMMIT={}",
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
}
