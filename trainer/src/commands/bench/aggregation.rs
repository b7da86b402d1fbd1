//! How long a server takes for a round of many clients, and in how much memory.

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use flapsam_model::config::AdapterConfig;
use flapsam_model::method::Method;
use flapsam_model::parameters::{Array, StateDict, initialise};
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;
use serde::Serialize;

use super::memory;
use crate::commands::params::named_config;
use crate::commands::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::federation::wire::{Precision, encode};
use crate::federation::{Aggregation, Epoch, Inbox, Invited, LocalTraining, Rules, Server, Update};
use crate::files::{forget_peak_memory, gibibytes, peak_memory, write};
use crate::machine;
use crate::report::grouped;
use crate::report::plots::{Axis, Plot, Series};

const RANK: usize = 32;
/// So many updates are made; clients hand them in in turn.
const DIFFERENT: usize = 4;

#[derive(Debug, Serialize)]
struct Row {
    clients: usize,
    /// From the first update that is read to the messages for all.
    seconds: f64,
    /// The most memory that the program held; where the system says so.
    peak_memory_bytes: Option<u64>,
    /// What the clients sent, bytes.
    up: u64,
    /// What they are sent, bytes.
    down: u64,
}

/// Updates of noise, as if each lay in a file.
struct Synthetic {
    updates: Vec<Update>,
    clients: usize,
}

impl Inbox for Synthetic {
    fn count(&self) -> usize {
        self.clients
    }

    fn update(&self, at: usize) -> Result<Cow<'_, Update>> {
        Ok(Cow::Owned(Update {
            site: site(at),
            ..self.updates[at % DIFFERENT].clone()
        }))
    }
}

fn site(place: usize) -> String {
    format!("client {place:05}")
}

pub fn run(clients: &[u32], plot: Option<&Path>, json: bool) -> Result<Outcome> {
    let rows: Vec<Row> = clients
        .iter()
        .map(|&clients| measure(clients as usize))
        .collect::<Result<_>>()?;
    if let Some(path) = plot {
        write(path, seconds_over_clients(&rows).as_bytes())?;
    }
    if json {
        print_json(&rows)?;
        return Ok(Outcome::Passed);
    }
    println!("{}, {} threads", machine::describe(), rayon::current_num_threads());
    println!(
        "  {:>8}{:>12}{:>14}{:>12}{:>12}",
        "clients", "seconds", "memory, GiB", "up, GiB", "down, GiB"
    );
    for row in &rows {
        println!(
            "  {:>8}{:>12.1}{:>14}{:>12.2}{:>12.2}",
            row.clients,
            row.seconds,
            memory(row.peak_memory_bytes),
            gibibytes(row.up),
            gibibytes(row.down)
        );
    }
    println!("\n  synthetic updates: FLAP-SAM on ViT-B, rank {RANK}, product SVD, 32 bits");
    Ok(Outcome::Passed)
}

/// The curve as an SVG file.
fn seconds_over_clients(rows: &[Row]) -> String {
    let points: Vec<(f64, f64)> = rows.iter().map(|row| (row.clients as f64, row.seconds)).collect();
    let words: Vec<String> = rows
        .iter()
        .map(|row| format!("{} clients {:.1} s", row.clients, row.seconds))
        .collect();
    let (clients, seconds): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    let number = |value: f64| match value {
        // Three tenths are a product, and not quite 0.3.
        small if small < 1.0 => ((small * 1e6).round() / 1e6).to_string(),
        _ => grouped(value.round() as u64),
    };
    let plot = Plot {
        alternative: format!("A server's seconds for a round: {}.", words.join(", ")),
        x: Axis::logarithmic("clients, log scale", &clients, number),
        y: Axis::logarithmic("seconds for a round, log scale", &seconds, number),
        series: vec![Series {
            style: 0,
            label: None,
            points,
            scattered: Vec::new(),
        }],
        levels: Vec::new(),
    };
    let threads = rayon::current_num_threads();
    plot.file(
        &[],
        &format!("synthetic updates, ViT-B, rank {RANK}, {threads} threads"),
    )
}

fn measure(clients: usize) -> Result<Row> {
    let adapter = Method::FlapSam.adapter(&AdapterConfig::lora(2, RANK));
    let layout = Sam::layout(&named_config("vit_b")?, Some(&adapter))?;
    let trained = Method::FlapSam.trained(&layout);
    let mut start = initialise(&layout, 0);
    start.retain(|key, _| trained.contains(key));
    let rules = rules();
    let updates = (0..DIFFERENT).map(|place| update(place, &start)).collect();
    let inbox = Synthetic { updates, clients };
    let sites: Vec<String> = (0..clients).map(site).collect();
    let invited = sites.iter().map(|site| Invited {
        site,
        slices: &[100],
        rank: RANK,
    });
    let mut server = Server::new(rules, layout, &start, &invited.collect::<Vec<_>>());
    let counts = forget_peak_memory();
    let begun = Instant::now();
    let came = server.aggregate(1, &inbox)?;
    let traffic = came.round.record.traffic;
    if came.messages.len() != clients {
        return Err(Error::Message("not every client is sent something".into()));
    }
    Ok(Row {
        clients,
        seconds: begun.elapsed().as_secs_f64(),
        peak_memory_bytes: peak_memory().filter(|_| counts),
        up: traffic.up,
        down: traffic.down,
    })
}

fn rules() -> Rules {
    Rules {
        seed: 1,
        rounds: 1,
        local: LocalTraining {
            batch_stacks: 1,
            stack_stride: 5,
            share: 1.0,
            augment: false,
            proximal: 0.0,
        },
        participation: 1.0,
        aggregation: Aggregation::ProductSvd,
        precision: Precision::F32,
        server_adam: None,
        privacy: None,
        robust: None,
        quorum: None,
        largest_change: None,
        secure_aggregation: false,
    }
}

/// What a client hands in: a little off the start at every number.
fn update(place: usize, start: &StateDict) -> Update {
    let mut random = Random::new(place as u64, "synthetic update");
    let mut noisy = |array: &Array| {
        let values = array.values.iter().map(|value| value + 0.01 * random.normal() as f32);
        Array::new(array.shape.clone(), values.collect())
    };
    let state: StateDict = start.iter().map(|(key, array)| (key.clone(), noisy(array))).collect();
    Update {
        round: 1,
        site: site(place),
        message: encode(&state, Precision::F32),
        squares: [0.0; 2],
        epoch: Epoch {
            loss: 0.0,
            seconds: 0.0,
            waiting: 0.0,
            marks: Vec::new(),
        },
    }
}
