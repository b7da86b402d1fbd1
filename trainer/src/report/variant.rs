//! What an experiment does otherwise than its method by itself, as its settings say it.

use serde::Serialize;

use crate::experiment::{Experiment, Setting};
use crate::federation::Aggregation;
use crate::federation::wire::Precision;

/// One departure from a method as the paper has it; in the order in which variants are listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Departure {
    /// All data in one place.
    Pooled,
    /// Weight-decomposed pairs, with magnitudes as the base has them.
    Dora,
    /// The same with magnitudes that are trained.
    DoraWithMagnitudes,
    /// So many pairs of each projection.
    Loras(usize),
    /// Pairs are averaged by another rule.
    Aggregation(Aggregation),
    /// Sites have ranks of their own.
    Ranks,
    /// The server has an optimizer.
    FedAdam,
    /// Clients are held near the server's state.
    FedProx,
    /// So many percent of the clients take part in a round.
    Participation(u32),
    /// 16 bits a parameter.
    Bits16,
    /// 8 bits a parameter.
    Bits8,
    /// Clients clip their changes and add noise.
    Private,
    /// The server learns sums alone.
    Secure,
    /// Updates are combined in a way that single clients cannot spoil.
    Robust(String),
    /// Something goes wrong at these clients, on purpose.
    Faulty(Vec<String>),
    /// This site takes no part in training.
    Without(String),
}

impl Departure {
    /// All departures of an experiment, in order.
    pub fn of(settings: &Experiment) -> Vec<Self> {
        let lora = settings.method.uses_lora();
        let travels = settings.setting == Setting::Federated;
        let federation = [
            // FedAdam cannot do without the mean of the factors, so that its own name says both.
            match settings.aggregation {
                Aggregation::ProductSvd => None,
                Aggregation::MeanOfFactors if settings.server_adam.is_some() => None,
                rule => lora.then_some(Self::Aggregation(rule)),
            },
            (!settings.ranks.is_empty()).then_some(Self::Ranks),
            settings.server_adam.map(|_| Self::FedAdam),
            (settings.local.proximal != 0.0).then_some(Self::FedProx),
            (settings.participation != 1.0)
                .then(|| Self::Participation((100.0 * settings.participation).round() as u32)),
            match settings.precision {
                Precision::F32 => None,
                Precision::F16 => Some(Self::Bits16),
                Precision::Int8 => Some(Self::Bits8),
            },
        ];
        let training = [
            (settings.setting == Setting::Pooled).then_some(Self::Pooled),
            match settings.train_magnitude {
                _ if !(lora && settings.dora) => None,
                false => Some(Self::Dora),
                true => Some(Self::DoraWithMagnitudes),
            },
            (lora && settings.num_lora != 1).then_some(Self::Loras(settings.num_lora)),
        ];
        let federation = federation.into_iter().filter(|_| travels);
        let private = settings.privacy.map(|_| Self::Private);
        let secure = settings.secure_aggregation.then_some(Self::Secure);
        let robust = settings.robust.map(|robust| Self::Robust(robust.title().to_owned()));
        let mut clients: Vec<String> = settings.fault.iter().map(|fault| fault.client.clone()).collect();
        clients.sort();
        clients.dedup();
        let faulty = (!clients.is_empty()).then_some(Self::Faulty(clients));
        let without = settings.leave_out.clone().map(Self::Without);
        training
            .into_iter()
            .chain(federation)
            .chain([private, secure, robust, faulty, without])
            .flatten()
            .collect()
    }

    /// In two or three words.
    pub fn describe(&self) -> String {
        match self {
            Self::Pooled => "pooled".into(),
            Self::Dora => "DoRA, magnitudes frozen".into(),
            Self::DoraWithMagnitudes => "DoRA".into(),
            Self::Loras(2) => "two LoRAs".into(),
            Self::Loras(count) => format!("{count} LoRAs"),
            Self::Aggregation(rule) => rule.title().into(),
            Self::Ranks => "a rank for each site".into(),
            Self::FedAdam => "FedAdam".into(),
            Self::FedProx => "FedProx".into(),
            Self::Participation(50) => "half the clients".into(),
            Self::Participation(percent) => format!("{percent} % of the clients"),
            Self::Bits16 => "16 bits".into(),
            Self::Bits8 => "8 bits".into(),
            Self::Private => "DP-FedAvg".into(),
            Self::Secure => "secure aggregation".into(),
            Self::Robust(rule) => rule.clone(),
            Self::Faulty(clients) => format!("a bad client ({})", clients.join(", ")),
            Self::Without(site) => format!("without {site}"),
        }
    }
}
