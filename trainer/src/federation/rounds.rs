use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use flapsam_kernels::Worker;
use flapsam_model::parameters::StateDict;

use super::folding::Folding;
use super::server::at;
use super::{Epoch, Fault, FaultKind, Holders, Member, Round, RoundRecord, Server, Update};
use crate::error::Result;
use crate::progress::Progress;

/// Clients and a server in one process: the same ones as where each is at its own site.
#[derive(Debug)]
pub struct Federation {
    /// The clients, in the order of their names.
    pub members: Vec<Member>,
    /// The server.
    pub server: Server,
    folding: Option<Folding>,
    /// What goes wrong at clients on purpose.
    faults: Vec<Fault>,
    /// Clients train at the same time: on a CPU, whose cores would wait otherwise. A graphics adapter is busy with one,
    /// and its memory is not enough for all.
    side_by_side: bool,
}

impl Federation {
    /// A federation before its first round.
    pub fn new(
        members: Vec<Member>,
        server: Server,
        folding: Option<Folding>,
        faults: Vec<Fault>,
        side_by_side: bool,
    ) -> Self {
        Self {
            members,
            server,
            folding,
            faults,
            side_by_side,
        }
    }

    /// Every client's epoch, and nothing travels.
    ///
    /// # Errors
    /// A case cannot be read, or the loss is no number.
    pub fn epoch_alone(&mut self, round: usize, progress: &Progress) -> Result<(Round, Vec<Epoch>)> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        let epochs = self.local_epochs(&all, round, progress)?;
        let sites = self.members.iter().map(|member| member.client.site.as_str());
        Ok((Round::of_epochs(round, sites.zip(&epochs)), epochs))
    }

    /// Local epochs from the common state, and averaging.
    ///
    /// # Errors
    /// See [`Federation::epoch_alone`].
    pub fn round(&mut self, round: usize, progress: &Progress) -> Result<(Round, Vec<Epoch>)> {
        let mut chosen = self.server.participants(round);
        chosen.retain(|&place| self.fault(place, round) != Some(FaultKind::Silent));
        let epochs = self.local_epochs(&chosen, round, progress)?;
        let mut updates = Vec::with_capacity(chosen.len());
        for (&place, epoch) in chosen.iter().zip(&epochs) {
            let update = self.hand_in(place, round, epoch.clone());
            updates.push(update.map_err(at(round, &self.members[place].client.site))?);
        }
        let came = self.server.aggregate(round, &updates[..])?;
        let rules = self.server.rules();
        for (member, message) in self.members.iter_mut().zip(&came.messages) {
            let received = member.receive(message, rules);
            received.map_err(at(round, &member.client.site))?;
        }
        self.fold(round)?;
        Ok((came.round, epochs))
    }

    /// What is wrong with a client in a round, if anything is.
    fn fault(&self, place: usize, round: usize) -> Option<FaultKind> {
        let site = &self.members[place].client.site;
        let fault = self.faults.iter().find(|fault| fault.strikes(site, round));
        fault.map(|fault| fault.kind)
    }

    /// What a client hands in, for better or worse.
    fn hand_in(&mut self, place: usize, round: usize, epoch: Epoch) -> Result<Update> {
        let fault = self.fault(place, round);
        let (server, member) = (&self.server, &mut self.members[place]);
        let rules = server.rules();
        let (said, share) = (member.said(round, rules), server.seats[place].weight);
        let Some(fault) = fault else {
            return member.hand_in(round, &rules.handed_in(said, share)?, epoch, rules);
        };
        let said = fault.said(said, &server.global.state, server.layout());
        let update = member.hand_in(round, &rules.handed_in(said, share)?, epoch, rules)?;
        Ok(Update {
            round: if fault == FaultKind::Replayed { round - 1 } else { round },
            message: fault.spoilt(update.message, rules.precision),
            ..update
        })
    }

    /// Where pairs are folded: brings all clients' weights and pairs to where the round ends.
    ///
    /// # Errors
    /// The pairs do not fit the network (a programming error).
    pub fn fold(&mut self, round: usize) -> Result<()> {
        let folded = &self.server.global.folded;
        let Some(folding) = self.folding.as_ref().filter(|_| !folded.is_empty()) else {
            return Ok(());
        };
        let weights = folding.weights(folded, self.server.layout())?;
        for member in &mut self.members {
            member.fold(round, &weights, self.server.rules());
        }
        Ok(())
    }

    /// The federation's model.
    pub fn model(&self) -> StateDict {
        self.server.model()
    }

    /// All that the federation goes on from: each client's optimizer steps, and the tensors.
    pub fn state(&self) -> (Vec<usize>, Holders) {
        let mut holders = Holders::default();
        holders.put_all("server/", self.server.state());
        let mut all_steps = Vec::new();
        for (place, member) in self.members.iter().enumerate() {
            // Mostly the server's state: kept once.
            let (steps, own) = member.state(&self.server.global.state);
            holders.put_all(&format!("client {place}/"), own);
            all_steps.push(steps);
        }
        (all_steps, holders)
    }

    /// The way back from [`Federation::state`], after these rounds.
    ///
    /// # Errors
    /// See [`Federation::fold`].
    pub fn restore(&mut self, rounds: &[RoundRecord], steps: &[usize], mut holders: Holders) -> Result<()> {
        self.server.restore(holders.take_all("server/"), rounds.last());
        self.fold(rounds.len())?;
        let (common, rules) = (&self.server.global.state, self.server.rules());
        for (place, member) in self.members.iter_mut().enumerate() {
            let own = holders.take_all(&format!("client {place}/"));
            let steps = steps.get(place).copied().unwrap_or_default();
            member.restore(steps, own, common, rules);
        }
        Ok(())
    }

    /// Local epochs of these clients, side by side: they do not know of each other, so which is first does not matter. They
    /// come in the order of the clients.
    fn local_epochs(&mut self, chosen: &[usize], round: usize, progress: &Progress) -> Result<Vec<Epoch>> {
        for &place in chosen {
            let flipped = self.fault(place, round) == Some(FaultKind::LabelFlip);
            self.members[place].client.flip_labels(flipped);
        }
        let (rules, seats) = (self.server.rules(), &self.server.seats);
        let members = self.members.iter_mut().enumerate();
        let mut order: Vec<(usize, &mut Member)> = members.filter(|(place, _)| chosen.contains(place)).collect();
        // The largest first: started last, it would keep everyone waiting.
        order.sort_by(|(one, _), (other, _)| seats[*other].weight.total_cmp(&seats[*one].weight));
        let epoch = |(place, member): (usize, &mut Member)| {
            let epoch = member.train(round, rules);
            let site = &member.client.site;
            let epoch = epoch.map_err(at(round, site))?;
            progress.step(&format!(
                "round {round}/{}, client {site}, loss {:.3}",
                rules.rounds, epoch.loss
            ));
            Ok((place, epoch))
        };
        let side_by_side = match self.side_by_side {
            true => rayon::current_num_threads().min(order.len()),
            false => 1,
        };
        // Threads of their own, not the pool's: there a client that waits for a piece of its own work could be given
        // another client's whole epoch.
        let waiting = Mutex::new(order.into_iter());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            let _worker = Worker::new();
            std::iter::from_fn(next).map(&epoch).collect::<Result<Vec<_>>>()
        };
        let epochs = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..side_by_side).map(|_| scope.spawn(work)).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            let epochs = ended.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            epochs.collect::<Result<Vec<_>>>()
        })?;
        let epochs: BTreeMap<usize, Epoch> = epochs.into_iter().flatten().collect();
        Ok(epochs.into_values().collect())
    }
}
