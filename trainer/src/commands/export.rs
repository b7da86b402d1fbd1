use std::path::{Path, PathBuf};

use flapsam_model::adapter::{Adapter, AdapterMetadata};
use flapsam_model::checkpoint::{EXPORT_KEY, sha256, unfolded, write_safetensors, write_safetensors_f16};
use flapsam_model::config::AdapterConfig;
use flapsam_model::merge::merge;
use flapsam_model::parameters::StateDict;
use flapsam_model::sam::Sam;
use serde::Serialize;

use super::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::experiment::{ADAPTER, adapters};
use crate::files::{read, refuse_input, write};
use crate::shipped::{NANO, shipped};
use crate::state_dict::read_state_dict;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A run's folder, or one of its adapters. For base-f16 it may be left out.
    #[arg(required_if_eq_any([("format", "flap-sam"), ("format", "merged")]))]
    run: Option<PathBuf>,
    /// What to write.
    #[arg(long, value_enum)]
    format: Format,
    /// The base checkpoint that the adapter was made for.
    #[arg(long, default_value_os_t = shipped(NANO))]
    base: PathBuf,
    /// Where the safetensors file goes.
    #[arg(long, short)]
    out: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// What an exported file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Format {
    /// The adapted network as the reference code saves it: every parameter under its name there, in f32.
    FlapSam,
    /// The adapted network with LoRA folded into the weights, in f32.
    Merged,
    /// The base checkpoint in f16.
    BaseF16,
}

/// What an exported file says of itself.
#[derive(Debug, Serialize)]
struct About<'a> {
    format: Format,
    /// This program's version.
    flapsam: &'static str,
    /// sha256 of the base checkpoint's file.
    base_sha256: &'a str,
    /// The adapter's own metadata: method, network with its image size, LoRA, classes, preprocessing.
    adapter: Option<&'a AdapterMetadata>,
}

#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    format: Format,
    tensors: usize,
    bytes: usize,
    sha256: String,
}

pub fn run(args: Args) -> Result<Outcome> {
    let run = args.run.as_deref().map(adapter_file).transpose()?;
    let inputs: Vec<&Path> = run.iter().map(PathBuf::as_path).chain([&args.base as &Path]).collect();
    refuse_input(&args.out, &inputs)?;
    let adapter = run.as_deref().map(read_adapter).transpose()?;
    let (base, base_sha256) = read_state_dict(&args.base)?;
    let state = match (&adapter, &run) {
        (Some(adapter), Some(path)) => {
            let metadata = &adapter.metadata;
            let adapted = adapter.on_base(&base, &base_sha256).map_err(Error::content(path))?;
            let official = |state, adapter: &AdapterConfig| -> Result<StateDict> {
                Ok(unfolded(state, &Sam::layout(&metadata.sam, Some(adapter))?))
            };
            match args.format {
                Format::FlapSam => official(adapted, &metadata.adapter)?,
                Format::Merged => {
                    let merged = merge(adapted, &metadata.sam, &metadata.adapter)?;
                    official(merged, &metadata.adapter.without_lora())?
                }
                Format::BaseF16 => base,
            }
        }
        _ => base,
    };
    let about = About {
        format: args.format,
        flapsam: env!("CARGO_PKG_VERSION"),
        base_sha256: &base_sha256,
        adapter: adapter.as_ref().map(|adapter| &adapter.metadata),
    };
    let about = serde_json::to_string(&about).map_err(|why| Error::invalid(&args.out, why))?;
    let metadata = Some((EXPORT_KEY, about));
    let bytes = match args.format {
        Format::FlapSam | Format::Merged => write_safetensors(&state, metadata),
        Format::BaseF16 => write_safetensors_f16(&state, metadata).map_err(Error::content(&args.base))?,
    };
    write(&args.out, &bytes)?;
    let report = Report {
        file: args.out,
        format: args.format,
        tensors: state.len(),
        bytes: bytes.len(),
        sha256: sha256(&bytes),
    };
    match args.json {
        true => print_json(&report)?,
        false => println!(
            "{} tensors, {} bytes, sha256 {}: {}",
            report.tensors,
            report.bytes,
            report.sha256,
            report.file.display()
        ),
    }
    Ok(Outcome::Passed)
}

fn read_adapter(path: &Path) -> Result<Adapter> {
    Adapter::from_bytes(&read(path)?).map_err(Error::content(path))
}

/// The adapter of a run's folder, or the file itself. A run of clients alone has several: then one must be named.
fn adapter_file(run: &Path) -> Result<PathBuf> {
    if !run.is_dir() {
        return Ok(run.to_owned());
    }
    let single = run.join(ADAPTER);
    if single.is_file() {
        return Ok(single);
    }
    let adapters = adapters(run)?;
    let names = adapters.iter().filter_map(|path| path.file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
    let why = match names.is_empty() {
        true => format!("it holds no {ADAPTER}; pass the folder of a finished run, or an adapter"),
        false => format!(
            "each of its clients has an adapter of its own; pass one of {}",
            names.join(", ")
        ),
    };
    Err(Error::invalid(run, why))
}
