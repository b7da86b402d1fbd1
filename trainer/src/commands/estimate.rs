use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use crate::device::OpenDevice;
use crate::error::Result;
use crate::experiment::estimate::{Estimate, Pace, estimate};
use crate::files::gibibytes;
use crate::verification::suite::Planned;

/// What an experiment will take.
#[derive(Debug, Serialize)]
pub struct Row {
    experiment: String,
    #[serde(flatten)]
    estimate: Estimate,
}

/// What the experiments will take on the device, from a few steps with each of their networks.
pub fn rows(planned: &[Planned], data: &Path, device: &OpenDevice) -> Result<Vec<Row>> {
    let mut paces: HashMap<String, Pace> = HashMap::new();
    let mut rows = Vec::new();
    for planned in planned {
        let experiment = &planned.experiment;
        let manifest = experiment.data_set(data)?;
        let classes = manifest.classes.len();
        // What the time of a step depends on.
        let network = format!(
            "{} {} {} {:?} {} {} {} {classes}",
            experiment.model,
            experiment.image_size,
            experiment.rank,
            experiment.method,
            experiment.num_lora,
            experiment.dora,
            experiment.train_magnitude
        );
        let pace = match paces.get(&network) {
            Some(pace) => *pace,
            None => Pace::measure(experiment, classes, device)?,
        };
        paces.insert(network, pace);
        rows.push(Row {
            experiment: planned.name.clone(),
            estimate: estimate(experiment, &manifest, &pace, device)?,
        });
    }
    Ok(rows)
}

/// The rows as a table, and their sum.
pub fn print_rows(rows: &[Row], device: &OpenDevice) {
    println!("estimate on {}, from a few steps with each network", device.name);
    println!(
        "  {:<44}{:>12}{:>14}{:>10}{:>12}",
        "experiment", "stacks", "judged slices", "hours", "memory GiB"
    );
    let memory = |bytes: Option<u64>| bytes.map_or("unknown".into(), |bytes| format!("{:.1}", gibibytes(bytes)));
    for row in rows {
        let Estimate {
            stacks,
            judged_slices,
            seconds,
            memory_bytes,
        } = row.estimate;
        println!(
            "  {:<44}{stacks:>12}{judged_slices:>14}{:>10.2}{:>12}",
            row.experiment,
            seconds / 3600.0,
            memory(memory_bytes)
        );
    }
    let hours: f64 = rows.iter().map(|row| row.estimate.seconds / 3600.0).sum();
    let of_all: Option<Vec<u64>> = rows.iter().map(|row| row.estimate.memory_bytes).collect();
    let most = of_all.and_then(|bytes| bytes.into_iter().max());
    println!(
        "  all, one after another: {hours:.2} hours; at most {} GiB of memory\n",
        memory(most)
    );
}
