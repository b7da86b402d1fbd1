//! What is compared with golden figures: data, network, communication, and each experiment.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Args;
use crate::data::cases::lock::ready;
use crate::data::files::check::{Checked, State, check};
use crate::data::files::folder::Folder;
use crate::device::OpenDevice;
use crate::error::Result;
use crate::experiment::{Provenance, Record, Start, run as run_experiment};
use crate::files::{read_json, write};
use crate::verification::claims::Claims;
use crate::verification::golden::{Figure, Row, compare, figures_of_seeds, read_snapshot, to_text};
use crate::verification::parity;
use crate::verification::suite::Planned;

/// Figures that belong together.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub name: String,
    pub rows: Vec<Row>,
}

pub(super) fn passed(sections: &[Section]) -> bool {
    sections.iter().flat_map(|section| &section.rows).all(|row| row.passed)
}

/// Every data set's files against its manifest.
pub(super) fn data_section(planned: &[Planned], data: &Path) -> Result<Section> {
    let mut manifests: Vec<PathBuf> = Vec::new();
    for planned in planned {
        let manifest = planned.experiment.manifest(data);
        if !manifests.contains(&manifest) {
            manifests.push(manifest);
        }
    }
    let mut rows = Vec::new();
    for path in manifests {
        let manifest = ready(&path, data)?;
        let checked = check(&manifest, &Folder::new(data.join(&manifest.about.name)));
        let wrong: Vec<&Checked> = checked.iter().filter(|file| file.state != State::Right).collect();
        for file in &wrong {
            let why = file.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            let (state, path) = (file.state.name(), file.path.display());
            eprintln!("flapsam: {path} is {state}{why}; delete the folder and make or fetch the data again");
        }
        let files = checked.len();
        rows.extend(compare(
            &[(
                format!("{} files right", manifest.about.name),
                Figure::Exact(files.to_string()),
            )]
            .into(),
            &[(
                format!("{} files right", manifest.about.name),
                Figure::Exact((files - wrong.len()).to_string()),
            )]
            .into(),
        ));
    }
    Ok(Section {
        name: "data".into(),
        rows,
    })
}

/// The reference's outputs.
pub(super) fn parity_section(folder: &Path, device: &OpenDevice) -> Result<Section> {
    let comparisons = parity::compare(folder, &device.device)?;
    let failed = comparisons
        .iter()
        .filter(|comparison| comparison.verdict == parity::Verdict::Failed)
        .count();
    let name = format!("of {} quantities, unlike the reference", comparisons.len());
    Ok(Section {
        name: "parity".into(),
        rows: compare(
            &[(name.clone(), Figure::Exact("0".into()))].into(),
            &[(name, Figure::Exact(failed.to_string()))].into(),
        ),
    })
}

/// The paper's claims that numbers of parameters decide, with the snapshot beside them.
pub(super) fn communication_section(claims: &Path) -> Result<Section> {
    let golden = read_snapshot(&claims.with_extension("snap"))?;
    Ok(Section {
        name: "communication".into(),
        rows: compare(&golden, &Claims::read(claims)?.figures()?),
    })
}

/// Runs an experiment, once for each seed, and compares its figures with the snapshot beside it.
pub(super) fn experiment_section(
    planned: &Planned,
    args: &Args,
    device: &OpenDevice,
) -> Result<(Section, Vec<Record>)> {
    let experiment = &planned.experiment;
    let start = match args.resume {
        true => Start::Keep,
        false => Start::Anew,
    };
    let out = args.out.join(&planned.name);
    let mut runs = Vec::new();
    for &seed in &experiment.seeds {
        let out = PathBuf::from(format!("{}-{seed}", out.display()));
        let record = run_experiment(experiment, seed, &args.data, device, &out, start)?;
        let provenance: Provenance = read_json(&out.join("provenance.json"))?;
        runs.push((record, provenance));
    }
    let got = figures_of_seeds(&runs);
    // Not by `with_extension`, which would cut a name with a dot in it.
    let beside = PathBuf::from(format!("{}.figures", out.display()));
    write(&beside, to_text(&got).as_bytes())?;
    let snapshot = experiment.path.with_extension("snap");
    let rows = match snapshot.exists() {
        true => compare(&read_snapshot(&snapshot)?, &got),
        // One line says it: there is nothing to hold the figures against.
        false => {
            let count = |count: usize| Figure::Exact(count.to_string());
            compare(
                &[("golden figures".to_owned(), count(got.len()))].into(),
                &[("golden figures".to_owned(), count(0))].into(),
            )
        }
    };
    let section = Section {
        name: planned.name.clone(),
        rows,
    };
    Ok((section, runs.into_iter().map(|(record, _)| record).collect()))
}
