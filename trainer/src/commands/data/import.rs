use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::commands::{Outcome, print_json};
use crate::data::cases::import::{Settings, import};
use crate::data::manifest::Manifest;
use crate::data::manifest::label_ids::LabelIds;
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder: a subfolder for each site, scans and masks in them. Its name becomes the data set's.
    folder: PathBuf,
    /// The manifest and its table go into this folder. The table holds the files' names: make sure they name no patient.
    #[arg(long, default_value = "data-manifests")]
    manifests: PathBuf,
    /// Names of the classes in the order of their labels from 1 on, such as kidney,tumour.
    #[arg(long, value_delimiter = ',', required_unless_present = "label_ids")]
    classes: Vec<String>,
    /// Which labels make which class, such as kidney=1+2,tumour=3; all others are background. Names the classes, in this
    /// order, where --classes does not.
    #[arg(long, value_delimiter = ',', value_name = "CLASS=ID+ID,..")]
    label_ids: Vec<String>,
    /// The share of each site's cases that is kept for testing.
    #[arg(long, default_value_t = 0.2)]
    test_share: f64,
    /// Decides which cases those are.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave out scans without a mask and masks without a scan.
    #[arg(long)]
    skip_unpaired: bool,
    /// Replace a manifest of this name.
    #[arg(long)]
    force: bool,
    /// Address of the licence.
    #[arg(long, default_value = "https://spdx.org/licenses/LicenseRef-not-for-distribution")]
    licence: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    if !(0.0..1.0).contains(&args.test_share) {
        let why = format!(
            "--test-share is {}; pass a share from 0 to below 1, such as 0.2",
            args.test_share
        );
        return Err(Error::Message(why));
    }
    let folder = args
        .folder
        .canonicalize()
        .map_err(Error::file("read the folder", &args.folder))?;
    let classes = args.classes.iter().map(|class| class.trim().to_owned()).collect();
    let (classes, label_ids) = classes_and_ids(classes, &args.label_ids)?;
    let settings = Settings {
        classes,
        label_ids,
        test_share: args.test_share,
        seed: args.seed,
        skip_unpaired: args.skip_unpaired,
        licence: args.licence,
    };
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let path = args.manifests.join(format!("{name}.json"));
    let taken = [path.clone(), args.manifests.join(format!("{name}.csv"))];
    if let Some(taken) = taken.iter().find(|path| path.exists() && !args.force) {
        let why = "there is a file of this name already; rename the data set's folder, or pass --force to replace it";
        return Err(Error::invalid(taken, why));
    }
    let manifest = import(&folder, &settings)?;
    manifest.write(&args.manifests)?;
    report(&manifest, &path, &folder, args.json)?;
    Ok(Outcome::Passed)
}

/// Says what a folder's manifest came to, and which sites nothing will be judged of.
fn report(manifest: &Manifest, path: &Path, folder: &Path, json: bool) -> Result<()> {
    let train = manifest.cases.iter().filter(|case| case.train).count();
    let test = manifest.cases.len() - train;
    let shares = manifest.slice_shares();
    let unjudged: Vec<&String> = shares.keys().filter(|site| !manifest.tests(site)).collect();
    for site in &unjudged {
        eprintln!(
            "flapsam: no case of site {site} is kept for testing, so nothing of it will be judged; --test-share decides"
        );
    }
    if json {
        return print_json(
            &json!({"manifest": path, "train": train, "test": test, "slice_shares": shares, "sites_without_test": unjudged}),
        );
    }
    println!(
        "{train} cases for training and {test} for testing, in {}",
        path.display()
    );
    for (site, share) in shares {
        println!("  {site}: {share:.3} of the training slices");
    }
    let data = folder.parent().unwrap_or(Path::new("/"));
    println!(
        "Name it in an experiment file (data = ..), and run that with --data {}",
        data.display()
    );
    Ok(())
}

/// The classes' names, and the ids that make each of them, where `CLASS=ID+ID` say so. Where no names are given, they are
/// those of these.
fn classes_and_ids(classes: Vec<String>, label_ids: &[String]) -> Result<(Vec<String>, Option<LabelIds>)> {
    if label_ids.is_empty() {
        return Ok((classes, None));
    }
    let refuse = |why: String| Error::Message(format!("--label-ids {}: {why}", label_ids.join(",")));
    let mut by_class = BTreeMap::new();
    let mut named = Vec::new();
    for entry in label_ids {
        let (class, ids) = entry
            .rsplit_once('=')
            .ok_or_else(|| refuse(format!("'{entry}' is no CLASS=ID+ID; write it as kidney=1+2")))?;
        let class = class.trim();
        if by_class.insert(class, ids.trim()).is_some() {
            return Err(refuse(format!("'{class}' is named twice; join its ids by +")));
        }
        named.push(class.to_owned());
    }
    let classes = if classes.is_empty() { named.clone() } else { classes };
    if let Some(unknown) = named.iter().find(|class| !classes.contains(class)) {
        let why = format!(
            "'{unknown}' is none of --classes {}; name it there too",
            classes.join(",")
        );
        return Err(refuse(why));
    }
    let ids = classes.iter().map(|class| {
        let ids = by_class.get(class.as_str()).copied();
        ids.ok_or_else(|| refuse(format!("it has no ids of '{class}'; add {class}=ID")))
    });
    let ids = LabelIds::new(ids.collect::<Result<Vec<_>>>()?).map_err(|why| refuse(why.to_string()))?;
    Ok((classes, Some(ids)))
}
