use flapsam_model::Error as ModelError;
use flapsam_model::parameters::{Layout, Role, StateDict};
use flapsam_model::random::Random;

use super::fixed_point::addend;
use super::wire::Precision;
use super::{Aggregation, LocalTraining, Privacy, Robust, ServerAdam};

/// How a federation goes about its rounds: what its clients and its server agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Of everything that is drawn.
    pub seed: u64,
    /// Rounds in all.
    pub rounds: usize,
    /// How a client goes through its data.
    pub local: LocalTraining,
    /// The share of clients that take part in a round.
    pub participation: f64,
    /// How the server makes one LoRA pair of the clients' pairs.
    pub aggregation: Aggregation,
    /// In how many bits parameters travel.
    pub precision: Precision,
    /// The server's own optimizer, if it has one.
    pub server_adam: Option<ServerAdam>,
    /// What hides a client's data from everybody else, if anything does.
    pub privacy: Option<Privacy>,
    /// What keeps single clients from spoiling the mean, if anything does.
    pub robust: Option<Robust>,
    /// How many of a round's clients must hand in an update that can be used; all of them without it.
    pub quorum: Option<usize>,
    /// The largest change of a client that is used, as a multiple of the round's median change.
    pub largest_change: Option<f64>,
    /// The server learns the sum of what clients say, and no client's own: see [`super::fixed_point`].
    pub secure_aggregation: bool,
}

impl Rules {
    /// The places of those of so many clients that take part in a round, drawn by the seed; all of them unless the rules
    /// say otherwise.
    pub fn participants(&self, round: usize, clients: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..clients).collect();
        Random::new(self.seed, &format!("participants/round {round}")).shuffle(&mut all);
        all.truncate(participants(self.participation, clients));
        all.sort_unstable();
        all
    }

    /// The epsilon of the client, of so many, that has taken part most often by the end of a round; none without privacy.
    pub fn epsilon(&self, round: usize, clients: usize) -> Option<f64> {
        let privacy = self.privacy?;
        let mut rounds = vec![0; clients];
        let taken_part = (1..=round).flat_map(|round| self.participants(round, clients));
        taken_part.for_each(|place| rounds[place] += 1);
        Some(privacy.epsilon(rounds.into_iter().max().unwrap_or_default()))
    }

    /// Which parameters of a network keep their coordinates from round to round.
    pub fn lasting<'a>(&self, layout: &'a Layout) -> impl Fn(&str) -> bool + 'a {
        let aggregation = self.aggregation;
        move |key| layout.get(key).is_none_or(|spec| aggregation.lasting(&spec.role))
    }

    /// What of the parameters that are trained travels in a round.
    pub fn sent_in(&self, round: usize, trained: StateDict, layout: &Layout) -> StateDict {
        let factors = self.aggregation.sent(round);
        travelling(trained, layout, |role| factors.have(role))
    }

    /// What a client hands in of what it says: all of it; or, where the server learns sums alone, its part of the sum, by its
    /// share in the average of all.
    ///
    /// # Errors
    /// A number is too large for a sum of integers.
    pub fn handed_in(&self, said: StateDict, share: f64) -> Result<StateDict, ModelError> {
        match self.secure_aggregation {
            true => addend(&said, share),
            false => Ok(said),
        }
    }

    /// What of the parameters that are trained travels in some round or other.
    pub fn ever_sent(&self, trained: StateDict, layout: &Layout) -> StateDict {
        let factors = self.aggregation.ever_sent();
        travelling(trained, layout, |role| factors.have(role))
    }

    /// What both a client and the server have before the first round of the parameters that are trained: all that ever
    /// travels, and what stays alike at all clients.
    pub fn known_to_both(&self, trained: StateDict, layout: &Layout) -> StateDict {
        match self.aggregation.is_personal() {
            true => self.ever_sent(trained, layout),
            false => travelling(trained, layout, |_| true),
        }
    }
}

/// How many clients take part in a round: a share of them, rounded up.
pub fn participants(share: f64, clients: usize) -> usize {
    ((share * clients as f64).ceil() as usize).clamp(1, clients.max(1))
}

/// Mixing weights never travel.
fn travelling(mut trained: StateDict, layout: &Layout, factor: impl Fn(&Role) -> bool) -> StateDict {
    let travels = |role: &Role| *role != Role::Mixing && factor(role);
    trained.retain(|key, _| layout.get(key).is_none_or(|spec| travels(&spec.role)));
    trained
}
