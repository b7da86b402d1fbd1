//! What is compared with golden figures: data, network, communication, and each experiment.

use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use serde::Serialize;

use super::Args;
use crate::data::cases::fit::misfits;
use crate::data::cases::lock::ready;
use crate::data::files::check::{Checked, State, check};
use crate::data::files::folder::Folder;
use crate::device::OpenDevice;
use crate::error::Result;
use crate::experiment::{Provenance, Record, Start, TRACE, run as run_experiment};
use crate::files::{read, read_json, write};
use crate::verification::claims::Claims;
use crate::verification::golden::{
    Closeness, Figure, Row, compare, figures_of_seeds, read_snapshot, snapshot_content, to_text,
};
use crate::verification::parity;
use crate::verification::suite::Planned;
use crate::verification::trace::{GOLDEN_AND_THIS, first_difference};

/// Figures that belong together.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    pub name: String,
    pub rows: Vec<Row>,
    /// On the CPU, at which moment a run parted from the golden one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parting: Option<String>,
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
        let misfits = match wrong.is_empty() {
            true => misfits(&manifest, &data.join(&manifest.about.name))?,
            false => Vec::new(),
        };
        for misfit in &misfits {
            eprintln!("flapsam: {misfit}");
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
                Figure::Exact(files.saturating_sub(wrong.len() + misfits.len()).to_string()),
            )]
            .into(),
            Closeness::Exact,
        ));
    }
    Ok(Section {
        name: "data".into(),
        rows,
        parting: None,
    })
}

/// The reference's outputs.
pub(super) fn parity_section(folder: &Path, device: &OpenDevice) -> Result<Section> {
    let comparisons = parity::compare(folder, None, &device.device)?;
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
            Closeness::Exact,
        ),
        parting: None,
    })
}

/// The paper's claims that numbers of parameters decide, with the snapshot beside them.
pub(super) fn communication_section(claims: &Path) -> Result<Section> {
    let golden = read_snapshot(&claims.with_extension("snap"))?;
    Ok(Section {
        name: "communication".into(),
        rows: compare(&golden, &Claims::read(claims)?.figures()?, Closeness::Exact),
        parting: None,
    })
}

/// Runs an experiment, once for each seed, and compares its figures with the snapshot beside it.
pub(super) fn experiment_section(
    planned: &Planned,
    args: &Args,
    device: &OpenDevice,
) -> Result<(Section, Vec<Record>)> {
    let experiment = &planned.experiment;
    let start = match (args.resume, args.replace) {
        (true, false) => Start::GoOn,
        (true, true) => Start::ReplaceOthers,
        (false, _) => Start::Replace,
    };
    let out = args.out.join(&planned.name);
    let (mut runs, mut trace) = (Vec::new(), String::new());
    let closeness = match device.is_cpu() {
        true => Closeness::Exact,
        false => Closeness::Tolerant,
    };
    for &seed in &experiment.seeds {
        let out = PathBuf::from(format!("{}-{seed}", out.display()));
        let record = run_experiment(experiment, seed, &args.data, device, &out, start)?;
        let provenance: Provenance = read_json(&out.join("provenance.json"))?;
        runs.push((record, provenance));
        trace += &format!("seed: {seed}\n{}", String::from_utf8_lossy(&read(&out.join(TRACE))?));
    }
    let got = figures_of_seeds(&runs);
    // Not by `with_extension`, which would cut a name with a dot in it.
    let beside = PathBuf::from(format!("{}.figures", out.display()));
    write(&beside, to_text(&got).as_bytes())?;
    write(&PathBuf::from(format!("{}.trace", out.display())), trace.as_bytes())?;
    let snapshot = experiment.path.with_extension("snap");
    let mut rows = match snapshot.exists() {
        true => compare(&read_snapshot(&snapshot)?, &got, closeness),
        // One line says it: there is nothing to hold the figures against.
        false => {
            let count = |count: usize| Figure::Exact(count.to_string());
            compare(
                &[("golden figures".to_owned(), count(got.len()))].into(),
                &[("golden figures".to_owned(), count(0))].into(),
                Closeness::Exact,
            )
        }
    };
    let mut parting = None;
    let golden_trace = experiment.path.with_extension("trace.snap");
    if closeness == Closeness::Exact && golden_trace.exists() {
        let golden = snapshot_content(&golden_trace)?;
        parting = first_difference(&golden, &trace, GOLDEN_AND_THIS);
        let checksum = |trace: &str| [("trace".to_owned(), Figure::Exact(sha256(trace.trim().as_bytes())))].into();
        rows.extend(compare(&checksum(&golden), &checksum(&trace), Closeness::Exact));
    }
    let section = Section {
        name: planned.name.clone(),
        rows,
        parting,
    };
    Ok((section, runs.into_iter().map(|(record, _)| record).collect()))
}
