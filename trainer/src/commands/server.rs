use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::experiment::across::{Coordinator, Standing};
use crate::verification::suite::placed;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a federation with the sites that have enrolled, and write the orders of the first round.
    Begin {
        #[command(flatten)]
        server: Server,
        /// The sites' enrolments.
        #[arg(required = true)]
        enrolments: Vec<PathBuf>,
    },
    /// Make the next state of a round's updates, and write the orders of the next round; after the last one the adapter,
    /// the ledger and the trace.
    Aggregate {
        #[command(flatten)]
        server: Server,
        /// The sites' updates.
        #[arg(required = true)]
        updates: Vec<PathBuf>,
        /// With secure_aggregation: the sum of what these sites add, integers of 32 bits.
        #[arg(long, value_name = "FILE")]
        sum: Option<PathBuf>,
    },
    /// Say where the federation stands.
    Status {
        #[command(flatten)]
        server: Server,
    },
}

/// Of which experiment, and where.
#[derive(Debug, clap::Args)]
struct Server {
    /// The experiment, the same at all sites: its file, or a suite's folder and the experiment's name.
    #[arg(value_name = "EXPERIMENT")]
    config: PathBuf,
    /// The server's folder, in which it goes on from round to round.
    #[arg(long)]
    state: PathBuf,
    /// Folder of data sets, for the base checkpoint; no scan is read.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// The seed, if not the experiment's first.
    #[arg(long)]
    seed: Option<u64>,
    /// Print where the federation stands as JSON.
    #[arg(long)]
    json: bool,
}

impl Server {
    fn open(&self) -> Result<Coordinator> {
        let experiment = Experiment::read(&placed(&self.config))?;
        let seed = self.seed.unwrap_or(experiment.seeds[0]);
        Coordinator::open(&experiment, seed, &self.data, &self.state)
    }

    fn print(&self, standing: &Standing) -> Result<()> {
        if self.json {
            return print_json(&json!(standing));
        }
        match standing.finished {
            true => println!(
                "All {} rounds are trained; the results are in {}",
                standing.rounds,
                self.state.display()
            ),
            false => println!("Round {} of {}", standing.round, standing.rounds),
        }
        for (site, why) in &standing.left_out {
            println!("{site} was left out: {why}");
        }
        for (site, order) in &standing.orders {
            println!("{site:<20}{}", order.display());
        }
        Ok(())
    }
}

pub fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::Begin { server, enrolments } => {
            let standing = server.open()?.begin(&enrolments)?;
            server.print(&standing)?;
        }
        Command::Aggregate { server, updates, sum } => {
            let standing = server.open()?.aggregate(&updates, sum.as_deref())?;
            server.print(&standing)?;
        }
        Command::Status { server } => match server.open()?.standing() {
            Some(standing) => server.print(&standing)?,
            None => {
                let why = "no federation has begun in it; 'flapsam server begin' takes the sites' enrolments";
                return Err(Error::invalid(&server.state, why));
            }
        },
    }
    Ok(Outcome::Passed)
}
