use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

use flapsam_kernels::Worker;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::merge::{adapted, merge};
use flapsam_model::parameters::{Layout, Role, StateDict, initial, pairs};
use flapsam_model::random::Random;
use serde::{Deserialize, Serialize};

use super::aggregation::{Factors, Sequel, norm};
use super::ledger::{Direction, Entry, Traffic, entries};
use super::server::cut;
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
    /// Its network.
    pub layout: Layout,
}

impl Member {
    /// A client that nothing has been sent to.
    pub fn new(weight: f64, client: Client, precision: Precision, layout: Layout) -> Self {
        let link = Link::new(precision, &sent(client.trained(), &layout, Factors::Both));
        Self {
            weight,
            client,
            link,
            layout,
        }
    }
}

/// What clients need to fold pairs into their weights.
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
    /// The attentions' weights with the folded pairs in them.
    fn weights(&self, folded: &StateDict, layout: &Layout) -> Result<StateDict> {
        let mut whole = self.weights.clone();
        whole.extend(folded.clone());
        let rank = pairs(layout).find_map(|pair| Some(folded.get(&pair.a)?.shape[0]));
        let adapter = AdapterConfig {
            rank: rank.unwrap_or_default(),
            ..self.adapter.clone()
        };
        let mut weights = merge(whole, &self.sam, &adapter)?;
        let adapted = adapted(layout);
        weights.retain(|key, _| adapted.contains(key));
        Ok(weights)
    }
}

/// The pairs that clients start anew with after a round: A drawn again, B zero.
fn fresh_pairs(round: usize, layout: &Layout, seed: u64) -> StateDict {
    let factors = layout.iter().filter(|(_, spec)| spec.role.pair().is_some());
    let fresh = factors.map(|(key, spec)| {
        let mut array = initial(&format!("{key}/round {round}"), spec, seed);
        if let Role::LoraB(_) = spec.role {
            array.values.fill(0.0);
        }
        (key.clone(), array)
    });
    fresh.collect()
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
    /// The server's network; a client's may be of lower rank.
    layout: Layout,
}

impl Federation {
    /// A federation before its first round. `start` is what is trained, before it is, in the server's network.
    pub fn new(
        rules: Rules,
        members: Vec<Member>,
        folding: Option<Folding>,
        start: &StateDict,
        layout: Layout,
    ) -> Self {
        let held = match rules.aggregation.is_personal() {
            true => rules.aggregation.ever_sent(),
            false => Factors::Both,
        };
        let server = Server {
            state: sent(start.clone(), &layout, held),
            ..Server::default()
        };
        Self {
            rules,
            members,
            server,
            folding,
            layout,
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
        let layout = &self.layout;
        let lasting = |key: &str| layout.get(key).is_none_or(|spec| aggregation.lasting(&spec.role));
        let mut ledger = self.catching_up(round, &chosen);
        let mut updates = Vec::with_capacity(chosen.len());
        let mut lost = Lost::default();
        for &place in &chosen {
            let member = &mut self.members[place];
            let site = &member.client.site;
            let sent = sent(member.client.trained(), layout, aggregation.sent(round));
            let delivery = member.link.up(&sent, lasting).map_err(at(round, site))?;
            ledger.extend(entries(
                round,
                site,
                Direction::Up,
                &delivery.message,
                precision,
                layout,
            ));
            marks.push(Mark::of_message(round, site, Moment::Sent, &delivery.message));
            lost.up.push(delivery.squares);
            updates.push(delivery.received);
        }
        let total: f64 = chosen.iter().map(|&place| self.members[place].weight).sum();
        let weights: Vec<f64> = chosen.iter().map(|&place| self.members[place].weight / total).collect();
        let adam = self.rules.server_adam.as_ref();
        let averaged = self.server.combine(&updates, &weights, aggregation, adam, layout);
        let global = averaged.sent;
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
                ledger.extend(entries(
                    round,
                    site,
                    Direction::Down,
                    &delivery.message,
                    precision,
                    layout,
                ));
                marks.push(Mark::of_message(round, site, Moment::Received, &delivery.message));
                lost.down.push(delivery.squares);
            }
            let mut received = delivery.received.clone();
            if aggregation.sequel() == Sequel::Folded {
                received.retain(|key, _| layout.get(key).is_none_or(|spec| spec.role.pair().is_none()));
            }
            member.client.receive(&cut(received, &member.layout));
        }
        self.fold(round)?;
        let mut round = self.round_of(round, epochs, ledger, marks);
        round.record.global_norm = Some(norm(&global, &self.layout));
        round.record.lora_error = averaged.lora_error;
        round.record.rounding = lost.shares(precision);
        Ok(round)
    }

    /// Where pairs are folded: brings all clients' weights and pairs to where the round ends.
    ///
    /// # Errors
    /// The pairs do not fit the network (a programming error).
    pub fn fold(&mut self, round: usize) -> Result<()> {
        let Some(folding) = self.folding.as_ref().filter(|_| !self.server.folded.is_empty()) else {
            return Ok(());
        };
        let weights = folding.weights(&self.server.folded, &self.layout)?;
        let anew = self.rules.aggregation.sequel() == Sequel::Folded;
        for member in &mut self.members {
            member.client.receive(&weights);
            if anew {
                let pairs = fresh_pairs(round, &member.layout, self.rules.seed);
                member.client.begin_anew_with(&pairs);
                member.link.agree(&pairs);
            }
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
        let state = sent(
            self.server.state.clone(),
            &self.layout,
            self.rules.aggregation.ever_sent(),
        );
        let message = encode(&state, precision);
        late.into_iter()
            .flat_map(|place| {
                let site = &self.members[place].client.site;
                entries(round, site, Direction::Down, &message, precision, &self.layout)
            })
            .collect()
    }

    /// The federation's model: what the clients received last, with what they folded into their weights in its pairs. Below
    /// 32 bits that is not quite what the server has.
    pub fn model(&self) -> StateDict {
        let mut model = self.server.model(&self.layout, self.rules.aggregation);
        if let Some(member) = self.members.first() {
            let (held, _) = member.link.parts();
            model.extend(held.clone());
        }
        model
    }

    /// The rank of a state's pairs, if it has any.
    pub fn rank(&self, state: &StateDict) -> Option<usize> {
        pairs(&self.layout).find_map(|pair| Some(state.get(&pair.a)?.shape[0]))
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
        let factors = self.rules.aggregation.trained(round);
        let epoch = |member: &mut Member| {
            let (client, layout) = (&mut member.client, &member.layout);
            if factors != Factors::Both {
                client.train_only(|key| layout.get(key).is_none_or(|spec| factors.have(&spec.role)));
            }
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

/// What travels of the parameters that are trained.
pub fn sent(mut trained: StateDict, layout: &Layout, factors: Factors) -> StateDict {
    let travels = |role: &Role| *role != Role::Mixing && factors.have(role);
    trained.retain(|key, _| layout.get(key).is_none_or(|spec| travels(&spec.role)));
    trained
}
