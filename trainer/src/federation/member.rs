use flapsam_model::parameters::{Layout, StateDict};
use serde::{Deserialize, Serialize};

use super::aggregation::{Aggregation, Factors, Sequel};
use super::folding::{cut, fresh_pairs};
use super::wire::Link;
use super::{Client, Epoch, Holders, Rules, Secret};
use crate::error::Result;
use crate::training::OptimizerState;

/// What a client hands in after its local epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The round that it was trained in, from 1.
    pub round: usize,
    /// Whose it is.
    pub site: String,
    /// What it has trained, as it travels: see [`super::wire::encode`].
    #[serde(skip)]
    pub message: Vec<u8>,
    /// What rounding took of it, and of how much: see [`super::wire::Sent`].
    pub squares: [f64; 2],
    /// The epoch.
    pub epoch: Epoch,
}

/// A client of a federation, with its network and its end of the line to the server.
#[derive(Debug)]
pub struct Member {
    /// The hospital.
    pub client: Client,
    /// Its network.
    pub layout: Layout,
    /// Its end of the line.
    pub link: Link,
    /// Where its noise comes from, where it adds any.
    pub secret: Secret,
    /// What it had before its last epoch of that which is trained; kept where noise is added to the way from it.
    before: StateDict,
}

impl Member {
    /// A client that nothing has been sent to.
    pub fn new(client: Client, layout: Layout, rules: &Rules) -> Self {
        let link = Link::new(rules.precision, &rules.known_to_both(client.trained(), &layout));
        Self {
            secret: Secret::simulated(rules.seed, &client.site),
            before: StateDict::new(),
            client,
            layout,
            link,
        }
    }

    /// How many numbers the client trains in some round or other.
    pub fn trained_parameters(&self, how: Aggregation) -> usize {
        let trained = self.client.trained();
        let ever = how.ever_trained().among(&self.layout);
        let counts = trained.iter().filter(|(key, _)| ever(key));
        counts.map(|(_, array)| array.values.len()).sum()
    }

    /// One local epoch.
    ///
    /// # Errors
    /// See [`Client::local_epoch`].
    pub fn train(&mut self, round: usize, rules: &Rules) -> Result<Epoch> {
        let factors = rules.aggregation.trained(round);
        if factors != Factors::Both {
            self.client.train_only(factors.among(&self.layout));
        }
        if rules.privacy.is_some() {
            self.before = self.client.trained();
        }
        self.client.local_epoch(round, &rules.local)
    }

    /// What the client says after a round that it has trained: what travels of its parameters, with the noise that hides its
    /// data, if the rules ask for that.
    pub fn said(&self, round: usize, rules: &Rules) -> StateDict {
        let trained = rules.sent_in(round, self.client.trained(), &self.layout);
        match rules.privacy {
            Some(privacy) => privacy.protected(&trained, &self.before, &self.secret),
            None => trained,
        }
    }

    /// The message of [`Member::said`].
    ///
    /// # Errors
    /// A number is not finite, or too large for the precision.
    pub fn hand_in(&mut self, round: usize, said: &StateDict, epoch: Epoch, rules: &Rules) -> Result<Update> {
        let sent = self.link.send_update(said, rules.lasting(&self.layout))?;
        Ok(Update {
            round,
            site: self.client.site.clone(),
            message: sent.message,
            squares: sent.squares,
            epoch,
        })
    }

    /// Takes over what the server sends.
    ///
    /// # Errors
    /// It is no message, or a number is not finite.
    pub fn receive(&mut self, message: &[u8], rules: &Rules) -> Result<()> {
        let mut received = self.link.receive_state(message, rules.lasting(&self.layout))?;
        if rules.aggregation.sequel() == Sequel::Folded {
            let layout = &self.layout;
            received.retain(|key, _| layout.get(key).is_none_or(|spec| spec.role.pair().is_none()));
        }
        self.client.receive(&cut(received, &self.layout));
        Ok(())
    }

    /// Takes over weights into which pairs are folded (see [`super::folding::Folding::weights`]), after a round.
    pub fn fold(&mut self, round: usize, weights: &StateDict, rules: &Rules) {
        self.client.receive(weights);
        if rules.aggregation.sequel() == Sequel::Folded {
            let pairs = fresh_pairs(round, &self.layout, rules.seed);
            self.client.begin_anew_with(&pairs);
            self.link.agree(&pairs);
        }
    }

    /// All that the client goes on from: its optimizer's steps, and its tensors but for those of `common`.
    pub fn state(&self, common: &StateDict) -> (usize, Holders) {
        let (steps, optimizer) = self.client.optimizer_state();
        let (held, residual) = self.link.parts();
        let mut own = self.client.trained();
        own.retain(|key, array| common.get(key) != Some(array));
        let mut holders = Holders::default();
        holders.put("trained", own);
        holders.put("first", optimizer.first);
        holders.put("second", optimizer.second);
        holders.put("counts", optimizer.counts);
        holders.put("held", held.clone());
        holders.put("residual", residual.clone());
        (steps, holders)
    }

    /// The way back from [`Member::state`].
    pub fn restore(&mut self, steps: usize, mut holders: Holders, common: &StateDict, rules: &Rules) {
        let mut trained = common.clone();
        trained.extend(holders.take("trained"));
        self.client.receive(&trained);
        let [first, second, counts] = ["first", "second", "counts"].map(|holder| holders.take(holder));
        let optimizer = OptimizerState { first, second, counts };
        self.client.restore_optimizer(steps, optimizer);
        let [held, residual] = ["held", "residual"].map(|holder| holders.take(holder));
        self.link = Link::with_parts(rules.precision, held, residual);
    }
}
