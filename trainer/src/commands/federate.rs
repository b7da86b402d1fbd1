use std::path::{Path, PathBuf};

use crate::commands::Outcome;
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::files::write;
use crate::verification::suite::placed;

/// The Flower app, file by file.
const APP: [(&str, &str); 11] = [
    ("pyproject.toml", include_str!("../../flower/pyproject.toml")),
    ("README.md", include_str!("../../flower/README.md")),
    ("HOSPITAL.md", include_str!("../../flower/HOSPITAL.md")),
    (
        "flapsam_flower/__init__.py",
        include_str!("../../flower/flapsam_flower/__init__.py"),
    ),
    (
        "flapsam_flower/client_app.py",
        include_str!("../../flower/flapsam_flower/client_app.py"),
    ),
    (
        "flapsam_flower/exchange.py",
        include_str!("../../flower/flapsam_flower/exchange.py"),
    ),
    (
        "flapsam_flower/program.py",
        include_str!("../../flower/flapsam_flower/program.py"),
    ),
    (
        "flapsam_flower/secure.py",
        include_str!("../../flower/flapsam_flower/secure.py"),
    ),
    (
        "flapsam_flower/server_app.py",
        include_str!("../../flower/flapsam_flower/server_app.py"),
    ),
    (
        "flapsam_flower/strategy.py",
        include_str!("../../flower/flapsam_flower/strategy.py"),
    ),
    (
        "flapsam_flower/wire.py",
        include_str!("../../flower/flapsam_flower/wire.py"),
    ),
];
/// Where the coordinating site's settings begin in `pyproject.toml`.
const SETTINGS: &str = "[tool.flwr.app.config]\n";
/// The experiment's file in the app's folder.
const EXPERIMENT: &str = "experiment.toml";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The experiment: its file, or a suite's folder and the experiment's name, such as golden/phantom/methods/flap_sam.
    #[arg(value_name = "EXPERIMENT")]
    config: PathBuf,
    /// Write the Flower app of the experiment into this folder, which must be new or empty.
    #[arg(long, value_name = "DIR")]
    print_app: PathBuf,
    /// Folder of data sets.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
}

pub fn run(args: Args) -> Result<Outcome> {
    let experiment = Experiment::read(&placed(&args.config))?;
    let manifest = Manifest::read(&experiment.manifest(&args.data))?;
    let folder = absolute(&args.print_app)?;
    if crate::files::files_in(&folder).is_ok_and(|files| !files.is_empty()) {
        let why = "it is not empty; choose a new folder, so that nothing of yours is lost";
        return Err(Error::invalid(&folder, why));
    }
    for (name, text) in APP {
        let text = match name {
            "pyproject.toml" => with_settings(text, &experiment, &manifest, &args.data, &folder)?,
            _ => text.to_owned(),
        };
        write(&folder.join(name), text.as_bytes())?;
    }
    write(&folder.join(EXPERIMENT), alone(&experiment, &args.data)?.as_bytes())?;
    println!(
        "The Flower app is in {}; README.md there says how it is run",
        folder.display()
    );
    Ok(Outcome::Passed)
}

/// The app's project file with this experiment's settings.
fn with_settings(
    text: &str,
    experiment: &Experiment,
    manifest: &Manifest,
    data: &Path,
    folder: &Path,
) -> Result<String> {
    let (head, _) = text.split_once(SETTINGS).unwrap_or((text, ""));
    let mut sites: Vec<&str> = manifest.cases.iter().map(|case| case.site.as_str()).collect();
    sites.sort_unstable();
    sites.dedup();
    let mut settings = toml::Table::new();
    let path = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned());
    settings.insert("program".into(), "flapsam".into());
    settings.insert("experiment".into(), path(&folder.join(EXPERIMENT)));
    settings.insert("data".into(), path(&absolute(data)?));
    settings.insert("state".into(), path(&folder.join("federation")));
    settings.insert("sites".into(), sites.join(",").into());
    settings.insert("deadline-seconds".into(), 86_400.into());
    settings.insert("again-seconds".into(), 900.into());
    Ok(format!(
        "{head}{SETTINGS}# Of the experiment '{}'.\n{settings}",
        experiment.title
    ))
}

/// The experiment as a file that can lie anywhere.
fn alone(experiment: &Experiment, data: &Path) -> Result<String> {
    let mut settings: toml::Table = experiment
        .resolved
        .parse()
        .map_err(|why: toml::de::Error| Error::invalid(&experiment.path, why.message()))?;
    for (key, path, whole) in [
        ("data", &experiment.data, experiment.manifest(data)),
        ("base", &experiment.base, experiment.base_checkpoint(data)),
    ] {
        // What is in the folder of data sets is found there at every site.
        if !path.starts_with("$DATA") {
            let whole = absolute(&whole)?;
            settings.insert(key.into(), whole.to_string_lossy().into_owned().into());
        }
    }
    Ok(settings.to_string())
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(Error::file("find", path))
}
