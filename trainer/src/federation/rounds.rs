use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use flapsam_kernels::Worker;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::merge::{is_adapted, merge};
use flapsam_model::method::is_personal;
use flapsam_model::parameters::{Array, StateDict, initial};
use flapsam_model::random::Random;
use flapsam_model::sam::Sam;
use serde::{Deserialize, Serialize};

use super::ledger::{Direction, Entry, Traffic, entries};
use super::server::{is_factor, is_second_factor, norm};
use super::trace::{Mark, Moment};
use super::wire::{Link, Precision, broadcast, encode, rounding};
use super::{Aggregation, Client, Epoch, LocalTraining, Server, ServerAdam};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// How a federation goes about its rounds.
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
    /// Clients train at the same time: on a CPU, whose cores would wait otherwise. A graphics adapter is busy with one,
    /// and its memory is not enough for all.
    pub side_by_side: bool,
}

/// One round, as the record keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// From 1.
    pub round: usize,
    /// Each client's mean training loss.
    pub loss: BTreeMap<String, f64>,
    /// Bytes that travelled.
    pub traffic: Traffic,
    /// Norm of all averaged parameters as one vector; none for clients alone. LoRA pairs count by their products, since
    /// the factors are free to turn.
    pub global_norm: Option<f64>,
    /// Dice by class on all test cases after this round, where the experiment asks for it.
    pub dice: Option<Vec<f64>>,
    /// How far the averaged LoRA pairs are from the mean of the clients' products, as a share of its norm. The server's own
    /// optimizer moves them afterwards.
    pub lora_error: Option<f64>,
    /// What rounding took from messages; none at 32 bits.
    #[serde(default)]
    pub rounding: Option<Rounding>,
}

/// How much of what was to be said rounding took from a round's messages, as a share of its norm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rounding {
    /// From the clients.
    pub up: f64,
    /// From the server.
    pub down: f64,
}

/// Sums of squares of what rounding took, message by message.
#[derive(Default)]
struct Lost {
    up: Vec<[f64; 2]>,
    down: Vec<[f64; 2]>,
}

impl Lost {
    fn shares(self, precision: Precision) -> Option<Rounding> {
        match precision {
            Precision::F32 => None,
            Precision::F16 | Precision::Int8 => Some(Rounding {
                up: rounding(self.up)?,
                down: rounding(self.down)?,
            }),
        }
    }
}

/// Says where in a federation something failed.
fn at<E: Display>(round: usize, site: &str) -> impl Fn(E) -> Error {
    move |why| Error::Message(format!("client {site}, round {round}: {why}"))
}

/// What a round came to.
#[derive(Debug)]
pub struct Round {
    /// For the record.
    pub record: RoundRecord,
    /// What travelled, message by message.
    pub entries: Vec<Entry>,
    /// The clients' epochs.
    pub epochs: Vec<Epoch>,
    /// Checksums along the way.
    pub marks: Vec<Mark>,
}

/// A client, and its place in the federation.
#[derive(Debug)]
pub struct Member {
    /// Its share in the average.
    pub weight: f64,
    /// The hospital.
    pub client: Client,
    /// Its line to the server.
    pub link: Link,
}

impl Member {
    /// A client that nothing has been sent to.
    pub fn new(weight: f64, client: Client, precision: Precision) -> Self {
        let link = Link::new(precision, &sent(client.trained()));
        Self { weight, client, link }
    }
}

/// What clients need to fold stacked pairs into their weights.
#[derive(Debug)]
pub struct Folding {
    /// The network's weights as they were before the first round.
    pub weights: StateDict,
    /// Its shape.
    pub sam: SamConfig,
    /// Its pairs, of one client's rank.
    pub adapter: AdapterConfig,
}

impl Folding {
    /// The attentions' weights with the folded pairs in them, and the pairs that the clients start the next round with:
    /// A drawn anew, B zero.
    fn after(&self, round: usize, folded: &StateDict, seed: u64) -> Result<(StateDict, StateDict)> {
        let mut whole = self.weights.clone();
        whole.extend(folded.clone());
        let rank = folded.values().next().map_or(0, |a| a.shape[0]);
        let adapter = AdapterConfig {
            rank,
            ..self.adapter.clone()
        };
        let mut weights = merge(whole, &self.sam, &adapter)?;
        weights.retain(|key, _| is_adapted(key));
        let layout = Sam::layout(&self.sam, Some(&self.adapter))?;
        let fresh = |(key, spec): (&String, _)| -> (String, Array) {
            let mut array = initial(&format!("{key}/round {round}"), spec, seed);
            if is_second_factor(key) {
                array.values.fill(0.0);
            }
            (key.clone(), array)
        };
        let pairs = layout.iter().filter(|(key, _)| is_factor(key)).map(fresh).collect();
        Ok((weights, pairs))
    }
}

/// Clients and a server.
#[derive(Debug)]
pub struct Federation {
    rules: Rules,
    /// The clients, in the order of the data set's sites.
    pub members: Vec<Member>,
    /// The server.
    pub server: Server,
    folding: Option<Folding>,
}

impl Federation {
    /// A federation before its first round.
    pub fn new(rules: Rules, members: Vec<Member>, folding: Option<Folding>) -> Self {
        let state = members.first().map(|member| sent(member.client.trained()));
        let server = Server {
            state: state.unwrap_or_default(),
            ..Server::default()
        };
        Self {
            rules,
            members,
            server,
            folding,
        }
    }

    /// Every client's epoch, and nothing travels.
    ///
    /// # Errors
    /// A case cannot be read, or the loss is no number.
    pub fn epoch_alone(&mut self, round: usize, progress: &Progress) -> Result<Round> {
        let all: Vec<usize> = (0..self.members.len()).collect();
        let epochs = self.local_epochs(&all, round, progress)?;
        Ok(self.round_of(round, epochs, Vec::new(), Vec::new()))
    }

    /// Local epochs from the common state, and averaging.
    ///
    /// # Errors
    /// See [`Federation::epoch_alone`].
    pub fn round(&mut self, round: usize, progress: &Progress) -> Result<Round> {
        let chosen = self.participants(round);
        let epochs = self.local_epochs(&chosen, round, progress)?;
        let mut marks = Vec::new();
        let (precision, aggregation) = (self.rules.precision, self.rules.aggregation);
        // A pair that the server turns has no coordinates in common with the one before.
        let lasting = |key: &str| aggregation == Aggregation::MeanOfFactors || !is_factor(key);
        let mut ledger = self.catching_up(round, &chosen);
        let mut updates = Vec::with_capacity(chosen.len());
        let mut lost = Lost::default();
        for &place in &chosen {
            let member = &mut self.members[place];
            let site = &member.client.site;
            let sent = sent(member.client.trained());
            let delivery = member.link.up(&sent, lasting).map_err(at(round, site))?;
            ledger.extend(entries(round, site, Direction::Up, &delivery.message, precision));
            marks.push(Mark::of_message(round, site, Moment::Sent, &delivery.message));
            lost.up.push(delivery.squares);
            updates.push(delivery.received);
        }
        let total: f64 = chosen.iter().map(|&place| self.members[place].weight).sum();
        let weights: Vec<f64> = chosen.iter().map(|&place| self.members[place].weight / total).collect();
        let adam = self.rules.server_adam.as_ref();
        let lora_error = self.server.combine(&updates, &weights, aggregation, adam);
        let global = self.server.state.clone();
        let failed = |why| Error::Message(format!("server, round {round}: {why}"));
        let alike = broadcast(&global, precision).map_err(failed)?;
        for (place, member) in self.members.iter_mut().enumerate() {
            // Those that sit out fetch it when they take part next: see `catching_up`.
            let site = &member.client.site;
            let delivery = match &alike {
                Some(delivery) => delivery,
                None => &member.link.down(&global, lasting).map_err(at(round, site))?,
            };
            if chosen.contains(&place) {
                ledger.extend(entries(round, site, Direction::Down, &delivery.message, precision));
                marks.push(Mark::of_message(round, site, Moment::Received, &delivery.message));
                lost.down.push(delivery.squares);
            }
            match self.folding {
                Some(_) => member.client.receive(&without_factors(delivery.received.clone())),
                None => member.client.receive(&delivery.received),
            }
        }
        self.fold(round)?;
        let mut round = self.round_of(round, epochs, ledger, marks);
        round.record.global_norm = Some(norm(&global));
        round.record.lora_error = lora_error;
        round.record.rounding = lost.shares(precision);
        Ok(round)
    }

    /// With stacked pairs: brings all clients' weights and pairs to where the round ends.
    ///
    /// # Errors
    /// The pairs do not fit the network (a programming error).
    pub fn fold(&mut self, round: usize) -> Result<()> {
        let Some(folding) = self.folding.as_ref().filter(|_| !self.server.folded.is_empty()) else {
            return Ok(());
        };
        let (weights, pairs) = folding.after(round, &self.server.folded, self.rules.seed)?;
        for member in &mut self.members {
            member.client.receive(&weights);
            member.client.begin_anew_with(&pairs);
            member.link.agree(&pairs);
        }
        Ok(())
    }

    /// What those clients of a round download before it that sat out the round before: the state that the others have.
    fn catching_up(&self, round: usize, chosen: &[usize]) -> Vec<Entry> {
        let before = match round {
            // The initial state is known to all by its seed.
            1 => (0..self.members.len()).collect(),
            _ => self.participants(round - 1),
        };
        let precision = self.rules.precision;
        let late: Vec<usize> = chosen.iter().copied().filter(|place| !before.contains(place)).collect();
        if late.is_empty() {
            return Vec::new();
        }
        let message = encode(&self.server.state, precision);
        late.into_iter()
            .flat_map(|place| {
                let site = &self.members[place].client.site;
                entries(round, site, Direction::Down, &message, precision)
            })
            .collect()
    }

    /// The federation's model: what the clients received last, its stacked pairs of all rounds as one. Below 32 bits that
    /// is not quite what the server has.
    pub fn model(&self) -> StateDict {
        let mut model = self.server.state.clone();
        if let Some(member) = self.members.first() {
            let (held, _) = member.link.parts();
            model.extend(held.clone());
        }
        model.extend(self.server.folded.clone());
        model
    }

    /// In how many bits parameters travel.
    pub fn precision(&self) -> Precision {
        self.rules.precision
    }

    /// The clients that take part in a round, drawn by the seed; all of them unless the rules say otherwise.
    fn participants(&self, round: usize) -> Vec<usize> {
        let clients = self.members.len();
        let wanted = participants(self.rules.participation, clients);
        let mut all: Vec<usize> = (0..clients).collect();
        Random::new(self.rules.seed, &format!("participants/round {round}")).shuffle(&mut all);
        all.truncate(wanted);
        all.sort_unstable();
        all
    }

    /// Local epochs, side by side: clients do not know of each other, so the order does not matter.
    fn local_epochs(&mut self, chosen: &[usize], round: usize, progress: &Progress) -> Result<BTreeMap<String, Epoch>> {
        let members = self.members.iter_mut().enumerate();
        let mut order: Vec<&mut Member> = members
            .filter_map(|(place, member)| chosen.contains(&place).then_some(member))
            .collect();
        // The largest first: started last, it would keep everyone waiting.
        order.sort_by(|one, other| other.weight.total_cmp(&one.weight));
        let (local, rounds) = (self.rules.local, self.rules.rounds);
        let epoch = |member: &mut Member| {
            let client = &mut member.client;
            let epoch = client.local_epoch(round, &local);
            let epoch = epoch.map_err(|why| at(round, &client.site)(why))?;
            progress.step(&format!(
                "round {round}/{rounds}, client {}, loss {:.3}",
                client.site, epoch.loss
            ));
            Ok((client.site.clone(), epoch))
        };
        let side_by_side = match self.rules.side_by_side {
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
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..side_by_side).map(|_| scope.spawn(work)).collect();
            let ended = threads.into_iter().map(|thread| thread.join());
            let epochs = ended.map(|ended| ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            let epochs = epochs.collect::<Result<Vec<_>>>()?;
            Ok(epochs.into_iter().flatten().collect())
        })
    }

    fn round_of(
        &self,
        round: usize,
        epochs: BTreeMap<String, Epoch>,
        ledger: Vec<Entry>,
        messages: Vec<Mark>,
    ) -> Round {
        let steps = epochs.values().flat_map(|epoch| epoch.marks.clone());
        Round {
            record: RoundRecord {
                round,
                loss: epochs.iter().map(|(site, epoch)| (site.clone(), epoch.loss)).collect(),
                traffic: Traffic::of(&ledger),
                global_norm: None,
                dice: None,
                lora_error: None,
                rounding: None,
            },
            entries: ledger,
            marks: steps.chain(messages).collect(),
            epochs: epochs.into_values().collect(),
        }
    }
}

/// How many clients take part in a round: a share of them, rounded up.
pub fn participants(share: f64, clients: usize) -> usize {
    ((share * clients as f64).ceil() as usize).clamp(1, clients.max(1))
}

/// What of a client's parameters travels.
pub fn sent(mut trained: StateDict) -> StateDict {
    trained.retain(|key, _| !is_personal(key));
    trained
}

fn without_factors(mut state: StateDict) -> StateDict {
    state.retain(|key, _| !is_factor(key));
    state
}
