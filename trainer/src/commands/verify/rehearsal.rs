use std::time::Instant;

use serde_json::json;

use super::Args;
use super::presence::{LeftOut, without};
use crate::commands::{Outcome, print_json};
use crate::device::OpenDevice;
use crate::error::Result;
use crate::experiment::{Start, run as run_experiment};
use crate::verification::suite::Planned;

/// Runs every experiment small: it must come to an end, whatever its figures.
pub(super) fn rehearse(planned: &[Planned], left_out: &[LeftOut], args: &Args, device: &OpenDevice) -> Result<Outcome> {
    let mut failed = Vec::new();
    for planned in planned {
        let experiment = &planned.experiment;
        let manifest = experiment.data_set(&args.data)?;
        let small = experiment.rehearsal(&manifest)?;
        let out = args.out.join("dry-run").join(&planned.name);
        let start = Instant::now();
        let end = run_experiment(&small, small.seeds[0], &args.data, device, &out, Start::Replace);
        let seconds = start.elapsed().as_secs_f64();
        let why = end.err().map(|why| why.to_string());
        if !args.json {
            let verdict = why.as_ref().map_or("ok".to_owned(), |why| format!("FAILED: {why}"));
            println!("  {:<48}{seconds:>8.1} s  {verdict}", planned.name);
        }
        failed.extend(why.map(|why| (planned.name.clone(), why)));
    }
    match args.json {
        true => {
            let (device, experiments) = (&device.name, planned.len());
            print_json(&json!({"device": device, "experiments": experiments, "failed": failed, "left_out": left_out}))?;
        }
        false => println!(
            "\n{} of {} experiments ran through on {}{}",
            planned.len() - failed.len(),
            planned.len(),
            device.name,
            without(left_out)
        ),
    }
    Ok(Outcome::of(failed.is_empty()))
}
