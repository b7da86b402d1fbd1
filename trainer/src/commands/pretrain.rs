use std::path::PathBuf;

use flapsam_model::checkpoint::{sha256, write_safetensors_f16};
use serde_json::json;

use super::params::named_config;
use super::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::Result;
use crate::files::write;
use crate::progress::Progress;
use crate::training::Pretraining;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the checkpoint goes (16-bit safetensors under SAM's own names).
    #[arg(long, short)]
    out: PathBuf,
    /// Which SAM.
    #[arg(long, default_value = "nano")]
    model: String,
    /// Optimizer steps of eight images with four prompts each.
    #[arg(long, default_value_t = 40000)]
    steps: usize,
    /// Seed of weights and images.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceChoice,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<Outcome> {
    let device = OpenDevice::open(args.device)?;
    let mut pretraining = Pretraining::new(named_config(&args.model)?, args.steps, args.seed, &device.device)?;
    let progress = Progress::new(args.steps);
    let tenth = args.steps.div_ceil(10).max(1);
    let (mut loss, mut iou) = (0.0, 0.0);
    let mut tenths = Vec::new();
    for step in 1..=args.steps {
        let result = pretraining.step()?;
        loss += result.loss / tenth as f32;
        iou += result.iou / tenth as f32;
        progress.step(&format!("loss {:.3}", result.loss));
        if step % tenth == 0 {
            if !args.json {
                println!("step {step:>6}: loss {loss:.4}, best mask's IoU {iou:.4}");
            }
            tenths.push(json!({"step": step, "loss": loss, "iou": iou}));
            (loss, iou) = (0.0, 0.0);
        }
    }
    let bytes = write_safetensors_f16(&pretraining.state(), None)?;
    write(&args.out, &bytes)?;
    let sha256 = sha256(&bytes);
    match args.json {
        true => print_json(&json!({"checkpoint": args.out, "bytes": bytes.len(), "sha256": sha256, "tenths": tenths}))?,
        false => println!("{} bytes, sha256 {sha256}: {}", bytes.len(), args.out.display()),
    }
    Ok(Outcome::Passed)
}
