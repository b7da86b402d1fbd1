use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, print_json};
use crate::device::{DeviceChoice, OpenDevice};
use crate::error::{Error, Result};
use crate::experiment::Experiment;
use crate::experiment::across::SiteClient;
use crate::files::write;
use crate::verification::suite::placed;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write what this site enters a federation with: its name, how many slices it trains on, and what it must have in
    /// common with the others.
    Enrol {
        #[command(flatten)]
        site: Site,
        /// Where the enrolment goes.
        #[arg(long)]
        out: PathBuf,
    },
    /// Train the round that an order of the server asks for, and write the update.
    Round {
        #[command(flatten)]
        site: Site,
        /// The server's order.
        #[arg(long)]
        order: PathBuf,
        /// Where the update goes.
        #[arg(long)]
        out: PathBuf,
        /// With secure_aggregation: where the integers go that are to be summed up over all sites, 32 bits each. The server must
        /// see their sum alone.
        #[arg(long, value_name = "FILE")]
        addend: Option<PathBuf>,
    },
    /// Take the finished model over into the site's folder, and judge it on the site's test cases.
    Finish {
        #[command(flatten)]
        site: Site,
        /// The server's last order.
        #[arg(long)]
        order: PathBuf,
        /// Print the report as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Which site, with what, and where.
#[derive(Debug, clap::Args)]
struct Site {
    /// The experiment, the same at all sites: its file, or a suite's folder and the experiment's name.
    #[arg(value_name = "EXPERIMENT")]
    config: PathBuf,
    /// This site's name, as the data set's manifest has it.
    #[arg(long)]
    site: String,
    /// The site's folder, in which it goes on from round to round.
    #[arg(long)]
    state: PathBuf,
    /// Folder of data sets; only this site's files are read.
    #[arg(long, env = "FLAPSAM_DATA", default_value = "data")]
    data: PathBuf,
    /// The seed, if not the experiment's first.
    #[arg(long)]
    seed: Option<u64>,
    /// Where to compute, if not where the experiment file says.
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
}

impl Site {
    fn open(&self) -> Result<SiteClient> {
        let experiment = Experiment::read(&placed(&self.config))?;
        let device = OpenDevice::open(self.device.unwrap_or(experiment.device))?;
        let seed = self.seed.unwrap_or(experiment.seeds[0]);
        SiteClient::open(&experiment, &self.site, seed, &self.data, &device, &self.state)
    }
}

/// Refuses to train what could not be handed in.
fn check_addend(site: &Site, secure: bool, addend: Option<&Path>) -> Result<()> {
    let why = match (secure, addend) {
        (true, None) => "with secure_aggregation the update holds no parameters; say where they go with --addend",
        (false, Some(_)) => "it has no secure_aggregation: the update holds the parameters; leave --addend out",
        _ => return Ok(()),
    };
    Err(Error::invalid(&site.config, why))
}

pub fn run(args: Args) -> Result<Outcome> {
    match args.command {
        Command::Enrol { site, out } => write(&out, &site.open()?.enrolment())?,
        Command::Round {
            site,
            order,
            out,
            addend,
        } => {
            let mut client = site.open()?;
            check_addend(&site, client.has_secure_aggregation(), addend.as_deref())?;
            let answer = client.round(&order)?;
            if let Some((path, integers)) = addend.zip(answer.addend) {
                write(&path, &integers)?;
            }
            write(&out, &answer.update)?;
        }
        Command::Finish { site, order, json } => {
            let report = site.open()?.finish(&order)?;
            if json {
                print_json(&json!(report))?;
            } else {
                println!("site {}, {} test cases", report.site, report.cases.len());
                for (class, dice) in report.classes[1..].iter().zip(&report.dice) {
                    println!("Dice of {class:<20}{dice:>10.4}");
                }
            }
        }
    }
    Ok(Outcome::Passed)
}
