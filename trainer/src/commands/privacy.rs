use serde_json::json;

use super::{Outcome, print_json};
use crate::error::{Error, Result};
use crate::federation::Privacy;
use crate::federation::privacy::least_noise;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Rounds that a client takes part in.
    #[arg(long)]
    rounds: usize,
    /// The chance that the guarantee does not hold.
    #[arg(long, default_value_t = 1e-5)]
    delta: f64,
    /// The noise's standard deviation, as a multiple of the largest change.
    #[arg(long, required_unless_present = "epsilon", conflicts_with = "epsilon")]
    noise_multiplier: Option<f64>,
    /// What it shall come to: says the least noise for it.
    #[arg(long)]
    epsilon: Option<f64>,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

/// # Errors
/// A number makes no sense.
pub fn run(args: &Args) -> Result<Outcome> {
    let positive = [("--epsilon", args.epsilon), ("--rounds", Some(args.rounds as f64))];
    for (name, value) in positive {
        if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
            return Err(Error::Message(format!("{name} must be above 0, and is {value}")));
        }
    }
    let mut privacy = Privacy {
        clip: 1.0,
        noise_multiplier: args.noise_multiplier.unwrap_or(1.0),
        delta: args.delta,
    };
    if let Some(why) = privacy.mistake() {
        return Err(Error::Message(why));
    }
    if let Some(wanted) = args.epsilon {
        privacy.noise_multiplier = least_noise(wanted, args.rounds, args.delta);
    }
    let (noise, epsilon) = (privacy.noise_multiplier, privacy.epsilon(args.rounds));
    if args.json {
        print_json(&json!({
            "rounds": args.rounds,
            "delta": args.delta,
            "noise_multiplier": noise,
            "epsilon": epsilon,
        }))?;
    } else {
        println!(
            "{} rounds with noise of {noise:.4} times the largest change: epsilon {epsilon:.4} at delta {}",
            args.rounds, args.delta
        );
    }
    Ok(Outcome::Passed)
}
