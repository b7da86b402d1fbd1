use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Outcome, print_json};
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::files::write;
use crate::shipped::{NANO, shipped};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The folder for it; it is made if it is not there.
    folder: PathBuf,
    /// The data set's manifest, such as 'flapsam data import' makes of a folder of your own; the phantom's without it.
    #[arg(long, default_value_os_t = shipped("data-manifests/phantom.json"))]
    data: PathBuf,
    /// The base checkpoint, such as 'flapsam data fetch sam-checkpoints' gets; the small one without it.
    #[arg(long, default_value_os_t = shipped(NANO))]
    base: PathBuf,
    /// Which SAM the base is: vit_b, vit_l, vit_h, mobile_sam or nano.
    #[arg(long, default_value = "nano")]
    model: String,
    /// Print where it is as JSON.
    #[arg(long)]
    json: bool,
}

/// The file's name.
const FILE: &str = "experiment.toml";

/// # Errors
/// There is such a file already, or the data or the base are not there.
pub fn run(args: &Args) -> Result<Outcome> {
    let file = args.folder.join(FILE);
    if file.exists() {
        return Err(Error::invalid(
            &file,
            "it is there already; choose another folder, or change that file",
        ));
    }
    let manifest = Manifest::read(&args.data)?;
    if !args.base.is_file() {
        return Err(Error::invalid(
            &args.base,
            "there is no such file; pass --base, a checkpoint of a Segment Anything",
        ));
    }
    let text = text(args, &manifest)?;
    // What was written is what can be read.
    Experiment::parse(&file, text.clone(), "")?;
    write(&file, text.as_bytes())?;
    match args.json {
        true => print_json(&json!({"experiment": file}))?,
        false => {
            println!("{}", file.display());
            if manifest.about.name == "phantom" {
                println!("  flapsam phantom           makes the data, if they are not there yet");
            }
            println!("  flapsam run {}", file.display());
        }
    }
    Ok(Outcome::Passed)
}

fn text(args: &Args, manifest: &Manifest) -> Result<String> {
    let quoted = |path: &Path| -> Result<String> {
        let whole = path.canonicalize().map_err(Error::file("find", path))?;
        Ok(toml::Value::from(whole.to_string_lossy().into_owned()).to_string())
    };
    let (name, classes) = (&manifest.about.name, manifest.classes.join(", "));
    let side = if args.model == "nano" { 128 } else { 256 };
    Ok(format!(
        r#"# An experiment on {name} ({classes}). 'flapsam run' of this file trains it; the run's folder is called after the file.
# Every key and what it may be: the documentation of flapsam::experiment::Experiment ('cargo doc --open').
title = "FLAP-SAM on {name}"
data = {data}
base = {base}
model = {model}
# Side of the training image, pixels; a multiple of 16. Larger is slower, and better for small structures.
image_size = {side}

# What is trained and sent: flap_sam, full_ft, attention_ft, decoder_ft, partial_decoder_ft, lora_ft or lora_decoder_ft.
method = "flap_sam"
# With whom a client trains: federated, alone or pooled.
setting = "federated"
# Of the LoRA pairs.
rank = 8
rounds = 3
# One run for each.
seeds = [1]
weight_decay = 0.1
# Keeps the masks of the test cases, for 'flapsam view'.
save_predictions = true

# How the server makes one LoRA pair of the clients': product_svd, mean_of_factors, ffa_lora, fedex_lora and others.
# aggregation = "product_svd"
# A site whose cases take no part in training, and are judged all the same.
# leave_out = "A"

[preprocessing]
# Values above this percentile of each scan are cut. Of CT cut a range in Hounsfield units instead: clip = [-100.0, 300.0]
clip_percentile = 99.0
scaling = "volume"

[local]
# Stacks of five slices in a batch.
batch_stacks = 2
# 1 takes every slice as a stack's middle (the paper), 5 shows each slice once an epoch.
stack_stride = 5
augment = false

[schedule]
base_lr = 5e-3
warmup_period = 20
max_iterations = 500
lr_exp = 1
"#,
        data = quoted(&args.data)?,
        base = quoted(&args.base)?,
        model = toml::Value::from(args.model.clone()),
    ))
}
