use std::collections::BTreeMap;

use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::method::Method;
use flapsam_model::sam::Sam;
use serde::Serialize;

use super::{Outcome, print_json};
use crate::error::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// vit_b, vit_l, vit_h, mobile_sam or nano.
    #[arg(long, default_value = "vit_b")]
    model: String,
    /// Side of the training image, pixels.
    #[arg(long, default_value_t = 224)]
    image_size: usize,
    /// Foreground classes.
    #[arg(long, default_value_t = 2)]
    classes: usize,
    /// Rank of the LoRA pairs.
    #[arg(long, default_value_t = 32)]
    rank: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    image_size: usize,
    num_classes: usize,
    rank: usize,
    total_without_lora: usize,
    /// Parameters by method.
    trainable: BTreeMap<Method, usize>,
    methods: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    method: Method,
    trainable: usize,
    /// Sent by one client in one round, one way, as 32-bit floats.
    bytes_per_round: usize,
    times_fewer_than_full: f64,
}

pub fn run(args: Args) -> Result<Outcome> {
    let config = named_config(&args.model)?.with_image_size(args.image_size);
    let adapter = AdapterConfig::lora(args.classes, args.rank);
    let layout = Sam::layout(&config, Some(&adapter))?;
    let count = |method: Method| method.count(&layout);
    let full = count(Method::FullFt);
    let row = |method: Method| {
        let trainable = count(method);
        Row {
            method,
            trainable,
            bytes_per_round: 4 * trainable,
            times_fewer_than_full: full as f64 / trainable as f64,
        }
    };
    let report = Report {
        model: args.model,
        image_size: args.image_size,
        num_classes: args.classes,
        rank: args.rank,
        total_without_lora: full,
        trainable: Method::ALL.into_iter().map(|method| (method, count(method))).collect(),
        methods: Method::ALL.into_iter().map(row).collect(),
    };
    if args.json {
        print_json(&report)?;
        return Ok(Outcome::Passed);
    }
    println!(
        "{}, image {} x {}, {} classes, LoRA rank {}",
        report.model, report.image_size, report.image_size, report.num_classes, report.rank
    );
    println!(
        "{:<20}{:>15}{:>17}{:>12}",
        "method", "parameters", "bytes a round", "full / it"
    );
    for row in &report.methods {
        println!(
            "{:<20}{:>15}{:>17}{:>12.1}",
            row.method.name(),
            grouped(row.trainable),
            grouped(row.bytes_per_round),
            row.times_fewer_than_full
        );
    }
    println!("A round's bytes are what one client sends one way, as 32-bit floats.");
    Ok(Outcome::Passed)
}

/// The configuration of that name.
pub fn named_config(name: &str) -> Result<SamConfig> {
    SamConfig::named(name).ok_or_else(|| {
        let known = SamConfig::NAMES.join(", ");
        Error::Message(format!("there is no model '{name}'; choose one of {known}"))
    })
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}
