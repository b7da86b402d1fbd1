use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use flapsam_model::parameters::{Layout, Role, Spec, StateDict};
use serde::{Deserialize, Serialize};

use super::aggregation::norm;
use super::ledger::{Direction, Entry, Traffic, entries};
use super::robust::{change, median_of};
use super::trace::{Mark, Moment};
use super::wire::{Link, Precision, Sent, encode, rounding};
use super::{Epoch, Global, Holders, Rules, Sums, Update};
use crate::error::{Error, Result};

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
    /// How private the client is that has taken part most often so far: see [`Privacy`](super::Privacy). None without noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// The clients of the round whose updates were not used, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, String>,
}

/// How much of what was to be said rounding took from a round's messages, as a share of its norm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rounding {
    /// From the clients.
    pub up: f64,
    /// From the server.
    pub down: f64,
}

/// What a round came to.
#[derive(Debug)]
pub struct Round {
    /// For the record.
    pub record: RoundRecord,
    /// What travelled, message by message.
    pub entries: Vec<Entry>,
    /// Checksums along the way.
    pub marks: Vec<Mark>,
}

impl Round {
    /// A round of which only the clients' epochs are known: the losses, and the checksums of their steps.
    pub fn of_epochs<'a>(round: usize, epochs: impl IntoIterator<Item = (&'a str, &'a Epoch)>) -> Self {
        let (mut loss, mut marks) = (BTreeMap::new(), Vec::new());
        for (site, epoch) in epochs {
            loss.insert(site.to_owned(), epoch.loss);
            marks.extend(epoch.marks.clone());
        }
        let record = RoundRecord {
            round,
            loss,
            traffic: Traffic::default(),
            global_norm: None,
            dice: None,
            lora_error: None,
            rounding: None,
            epsilon: None,
            left_out: BTreeMap::new(),
        };
        Self {
            record,
            entries: Vec::new(),
            marks,
        }
    }
}

/// A client's place at the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Seat {
    /// Whose it is.
    pub site: String,
    /// Its share in the average of all.
    pub weight: f64,
    /// The rank of its pairs.
    pub rank: usize,
    /// The server's end of the line.
    pub link: Link,
}

/// A client that a server has a place for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Invited<'a> {
    /// Its name.
    pub site: &'a str,
    /// The slices of each case that it trains on: in all, its weight in the average.
    pub slices: &'a [usize],
    /// The rank of its pairs.
    pub rank: usize,
}

/// Each client's share of all slices: the sum of its cases' shares, in their order, since another sum differs in its last
/// bit.
pub fn shares(clients: &[&[usize]]) -> Vec<f64> {
    let total: usize = clients.iter().flat_map(|slices| slices.iter()).sum();
    let share = |slices: &&[usize]| slices.iter().map(|&slices| slices as f64 / total as f64).sum();
    clients.iter().map(share).collect()
}

/// The server: it makes the next state of the clients' updates, and never sees a scan.
#[derive(Debug)]
pub struct Server {
    rules: Rules,
    /// Its network; a client's may be of lower rank.
    layout: Layout,
    /// The federation's model.
    pub global: Global,
    /// The clients, in the order of their names.
    pub seats: Vec<Seat>,
    /// Who took part in the round before; all have what was before the first one.
    before: Option<BTreeSet<String>>,
}

/// Where a round's updates lie. The server reads one after the other, twice: to see which can be used, and to use them. So it
/// never holds more than one, unless a rule must see all at once.
pub trait Inbox {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them.
    ///
    /// # Errors
    /// It cannot be read, or belongs to another federation.
    fn update(&self, at: usize) -> Result<Cow<'_, Update>>;
}

impl Inbox for [Update] {
    fn count(&self) -> usize {
        self.len()
    }

    fn update(&self, at: usize) -> Result<Cow<'_, Update>> {
        Ok(Cow::Borrowed(&self[at]))
    }
}

/// An update that can be used.
struct Used {
    /// Its place in the inbox.
    at: usize,
    /// That of its client.
    place: usize,
    epoch: Epoch,
    squares: [f64; 2],
    entries: Vec<Entry>,
    mark: Mark,
    bytes: u64,
    /// How far it goes, where that is judged.
    change: f64,
}

/// The updates of a round, in the order of the clients, and those that cannot be used.
struct Sorted {
    used: Vec<Used>,
    left_out: BTreeMap<String, Unused>,
}

/// An update that was not used.
struct Unused {
    why: String,
    bytes: u64,
}

impl Default for Unused {
    fn default() -> Self {
        Self {
            why: "it handed in nothing".into(),
            bytes: 0,
        }
    }
}

impl Unused {
    /// Its line in the ledger: it travelled all the same.
    fn entry(&self, round: usize, client: &str) -> Entry {
        Entry {
            round,
            client: client.to_owned(),
            direction: Direction::LeftOut,
            group: "message".to_owned(),
            parameters: 0,
            bytes: self.bytes,
            formula_bytes: 0,
        }
    }
}

/// What the server makes of a round's updates.
#[derive(Debug)]
pub struct Aggregated {
    /// What the round came to.
    pub round: Round,
    /// The message to each client, whether it took part or not; at 32 bits all are one.
    pub messages: Vec<Arc<Vec<u8>>>,
}

impl Server {
    /// A server before the first round. `start` is what is trained, before it is, in the server's network; the clients come
    /// in the order of their names.
    pub fn new(rules: Rules, layout: Layout, start: &StateDict, clients: &[Invited]) -> Self {
        let state = rules.known_to_both(start.clone(), &layout);
        let slices: Vec<&[usize]> = clients.iter().map(|client| client.slices).collect();
        let seat = |(client, weight): (&Invited, f64)| Seat {
            site: client.site.to_owned(),
            weight,
            rank: client.rank,
            link: Link::new(rules.precision, &state),
        };
        Self {
            seats: clients.iter().zip(shares(&slices)).map(seat).collect(),
            before: None,
            global: Global {
                state,
                ..Global::default()
            },
            rules,
            layout,
        }
    }

    /// Its network.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the federation agrees on.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The places of the clients that take part in a round.
    pub fn participants(&self, round: usize) -> Vec<usize> {
        self.rules.participants(round, self.seats.len())
    }

    /// What clients send in a round: the names and shapes of it, at the server's rank.
    pub fn expected(&self, round: usize) -> StateDict {
        self.rules.sent_in(round, self.global.state.clone(), &self.layout)
    }

    /// Makes the next state of the updates that clients handed in after a round. Who handed in none, or one that cannot be
    /// used, is left out, as long as enough are left.
    ///
    /// # Errors
    /// Fewer than the rules ask for are left; the message says what is wrong with the others. Or a number in the next
    /// state is not finite.
    pub fn aggregate(&mut self, round: usize, inbox: &(impl Inbox + ?Sized)) -> Result<Aggregated> {
        let Sorted { used, left_out } = self.sort(round, inbox)?;
        let site = |used: &Used| self.seats[used.place].site.clone();
        let epochs = used
            .iter()
            .map(|used| (self.seats[used.place].site.as_str(), &used.epoch));
        let mut came = Round::of_epochs(round, epochs);
        came.entries = self.catching_up(round);
        for (client, unused) in left_out {
            came.entries.push(unused.entry(round, &client));
            came.record.left_out.insert(client, unused.why);
        }
        for used in &used {
            came.entries.extend(used.entries.iter().cloned());
            // What the server must not learn leaves no trace.
            if !self.rules.secure_aggregation {
                came.marks.push(used.mark.clone());
            }
        }
        let took_part: BTreeSet<String> = used.iter().map(site).collect();
        let squares: Vec<[f64; 2]> = used.iter().map(|used| used.squares).collect();
        let (mean, lora_error) = self.averaged(round, inbox, &used)?;
        let (aggregation, precision) = (self.rules.aggregation, self.rules.precision);
        let adam = self.rules.server_adam.as_ref();
        let sent_state = self.global.advance(mean, aggregation, adam, &self.layout);
        let sent = self.send(round, &sent_state)?;
        self.before = Some(took_part);
        for (place, sent) in sent.iter().enumerate() {
            // The others fetch it when they take part next: see `catching_up`.
            if self.is_current(place) {
                let site = &self.seats[place].site;
                came.note(site, Direction::Down, &sent.message, precision, &self.layout);
            }
        }
        came.record.traffic = Traffic::of(&came.entries);
        came.record.global_norm = Some(norm(&sent_state, &self.layout));
        came.record.lora_error = lora_error;
        came.record.rounding = self.rounding(squares, &sent);
        came.record.epsilon = self.rules.epsilon(round, self.seats.len());
        Ok(Aggregated {
            round: came,
            messages: sent.into_iter().map(|sent| sent.message).collect(),
        })
    }

    /// What the updates come to, and how far its pairs are from the mean of the clients' products.
    fn averaged(&self, round: usize, inbox: &(impl Inbox + ?Sized), used: &[Used]) -> Result<(StateDict, Option<f64>)> {
        let weights = used.iter().map(|used| self.seats[used.place].weight);
        let total: f64 = weights.clone().sum();
        let secure = self.rules.secure_aggregation;
        // Addends are weighted by the clients, who do not know who else takes part.
        let weight = |weight: f64| if secure { 1.0 } else { weight / total };
        let weights: Vec<f64> = weights.map(weight).collect();
        let mut sums = Sums::new(self.rules.aggregation, &self.layout, &self.global.state);
        let mut all = Vec::new();
        for (used, weight) in used.iter().zip(&weights) {
            let update = inbox.update(used.at)?;
            let seat = &self.seats[used.place];
            let failed = at(round, &seat.site);
            if Mark::of_message(round, &seat.site, Moment::Sent, &update.message) != used.mark {
                return Err(failed("its update has changed while it was read".into()));
            }
            let state = seat.link.receive_update(&update.message);
            let state = state.map_err(|why| failed(why.to_string()))?;
            sums.add(&state, *weight);
            if self.rules.robust.is_some() {
                all.push(state);
            }
        }
        if secure {
            sums.scale(1.0 / total);
        }
        let mean = match self.rules.robust {
            Some(robust) => robust.aggregate(&all, &weights, &self.global.state, &self.layout),
            None => sums.mean(),
        };
        // It takes the clients' own products.
        let lora_error = if secure { None } else { sums.lora_error(&mean) };
        Ok((mean, lora_error))
    }

    /// Which updates of a round can be used.
    fn sort(&self, round: usize, inbox: &(impl Inbox + ?Sized)) -> Result<Sorted> {
        let mut left_out: BTreeMap<String, Unused> = BTreeMap::new();
        let mut used: BTreeMap<usize, Used> = BTreeMap::new();
        let expected = self.expected(round);
        let chosen = self.participants(round);
        let names = chosen.iter().map(|&place| &self.seats[place].site);
        left_out.extend(names.map(|site| (site.clone(), Unused::default())));
        for at_inbox in 0..inbox.count() {
            let update = inbox.update(at_inbox)?;
            let site = &update.site;
            match self.understand(round, &update, &expected) {
                Ok((place, _)) if used.contains_key(&place) => {
                    return Err(at(round, site)("there are two updates of it; pass one"));
                }
                Ok((place, state)) => {
                    left_out.remove(site);
                    used.insert(place, self.used(round, at_inbox, place, &update, &state));
                }
                Err(why) => {
                    let bytes = update.message.len() as u64;
                    left_out.insert(site.clone(), Unused { why, bytes });
                }
            }
        }
        if let Some(times) = self.rules.largest_change {
            left_out.extend(self.too_far(times, &mut used));
        }
        let least = self.rules.robust.map_or(1, |robust| robust.least_updates());
        let enough = self.rules.quorum.unwrap_or(chosen.len()).max(least);
        if used.len() < enough {
            let unused = left_out.iter().map(|(site, unused)| format!("{site}: {}", unused.why));
            return Err(Error::Message(format!(
                "round {round} needs {enough} updates that can be used, and has {}; not used are {}",
                used.len(),
                unused.collect::<Vec<_>>().join("; ")
            )));
        }
        Ok(Sorted {
            used: used.into_values().collect(),
            left_out,
        })
    }

    /// An update that can be used, with the state in it.
    fn used(&self, round: usize, at: usize, place: usize, update: &Update, state: &StateDict) -> Used {
        let (site, message) = (&update.site, &update.message);
        let (precision, layout) = (self.rules.precision, &self.layout);
        let judged = self.rules.largest_change.is_some();
        Used {
            at,
            place,
            epoch: update.epoch.clone(),
            squares: update.squares,
            entries: entries(round, site, Direction::Up, message, precision, layout),
            mark: Mark::of_message(round, site, Moment::Sent, message),
            bytes: message.len() as u64,
            change: if judged {
                change(state, &self.global.state, layout)
            } else {
                0.0
            },
        }
    }

    /// Takes out the updates whose change is larger than so many times the median one.
    fn too_far(&self, times: f64, used: &mut BTreeMap<usize, Used>) -> Vec<(String, Unused)> {
        let changes: Vec<f64> = used.values().map(|used| used.change).collect();
        let most = times * median_of(&changes);
        let far = used.extract_if(.., |_, used| used.change > most);
        far.map(|(place, used)| {
            let times = used.change * times / most;
            let why = format!("its change is {times:.1} times the round's median");
            let unused = Unused { why, bytes: used.bytes };
            (self.seats[place].site.clone(), unused)
        })
        .collect()
    }

    /// The place of the client whose update it is, and the state in it. Refused, with a sentence why, is what is of no
    /// client that takes part in the round, and what that client would not send in it: parameters of other names, shapes
    /// or types, a number that is not finite, or another round's.
    /// `expected` is what travels in the round.
    fn understand(
        &self,
        round: usize,
        update: &Update,
        expected: &StateDict,
    ) -> std::result::Result<(usize, StateDict), String> {
        let failed = Err;
        let place = self.seats.iter().position(|seat| seat.site == update.site);
        let place = place.ok_or("it is no client of this federation")?;
        if !self.participants(round).contains(&place) {
            return failed("it sits this round out".into());
        }
        if update.round != round {
            return failed(format!("its update is of round {}", update.round));
        }
        let seat = &self.seats[place];
        let state = seat
            .link
            .receive_update(&update.message)
            .map_err(|why| why.to_string())?;
        if let Some(key) = expected.keys().find(|key| !state.contains_key(*key)) {
            return failed(format!("its update lacks '{key}'"));
        }
        for (key, array) in &state {
            let Some(spec) = self.layout.get(key).filter(|_| expected.contains_key(key)) else {
                return failed(format!("its update holds '{key}', which does not travel"));
            };
            let shape = shape(spec, seat.rank);
            if array.shape != shape {
                let why = format!(
                    "its update holds '{key}' of shape {:?}, which has {shape:?}",
                    array.shape
                );
                return failed(why);
            }
        }
        Ok((place, state))
    }

    /// The messages that carry a state to each client.
    fn send(&mut self, round: usize, state: &StateDict) -> Result<Vec<OnItsWay>> {
        if self.rules.precision == Precision::F32 {
            let failed = |why| Error::Message(format!("server, round {round}: {why}"));
            let sent = OnItsWay::from(Sent::whole(state).map_err(failed)?);
            return Ok(vec![sent; self.seats.len()]);
        }
        let lasting = self.rules.lasting(&self.layout);
        let send = |seat: &mut Seat| {
            let sent = seat.link.send_state(state, &lasting).map_err(at(round, &seat.site))?;
            Ok(sent.into())
        };
        self.seats.iter_mut().map(send).collect()
    }

    /// What rounding took from a round's messages.
    fn rounding(&self, updates: Vec<[f64; 2]>, sent: &[OnItsWay]) -> Option<Rounding> {
        match self.rules.precision {
            Precision::F32 => None,
            Precision::F16 | Precision::Int8 => Some(Rounding {
                up: rounding(updates)?,
                down: rounding(sent.iter().map(|sent| sent.squares))?,
            }),
        }
    }

    /// What those clients of a round download before it that sat out the round before: the state that the others have.
    fn catching_up(&self, round: usize) -> Vec<Entry> {
        let late: Vec<usize> = self
            .participants(round)
            .into_iter()
            .filter(|&place| !self.is_current(place))
            .collect();
        if late.is_empty() {
            return Vec::new();
        }
        let (precision, layout) = (self.rules.precision, &self.layout);
        let message = self.whole_state();
        let entries = |place: usize| {
            let site = &self.seats[place].site;
            entries(round, site, Direction::Down, &message, precision, layout)
        };
        late.into_iter().flat_map(entries).collect()
    }

    /// Whether a client has the state that the round before ended in.
    pub fn is_current(&self, place: usize) -> bool {
        // The initial state is known to all by its seed.
        self.before
            .as_ref()
            .is_none_or(|before| before.contains(&self.seats[place].site))
    }

    /// The message for those who missed a round.
    pub fn whole_state(&self) -> Vec<u8> {
        let state = self.rules.ever_sent(self.global.state.clone(), &self.layout);
        encode(&state, self.rules.precision)
    }

    /// All that the server goes on from.
    pub fn state(&self) -> Holders {
        let mut holders = Holders::default();
        holders.put("state", self.global.state.clone());
        holders.put("first", self.global.first.clone());
        holders.put("second", self.global.second.clone());
        holders.put("folded", self.global.folded.clone());
        for (place, seat) in self.seats.iter().enumerate() {
            let (held, _) = seat.link.parts();
            holders.put(&format!("held {place}"), held.clone());
        }
        holders
    }

    /// The way back from [`Server::state`], after this round.
    pub fn restore(&mut self, mut holders: Holders, last: Option<&RoundRecord>) {
        self.before = last.map(|last| last.loss.keys().cloned().collect());
        self.global = Global {
            state: holders.take("state"),
            first: holders.take("first"),
            second: holders.take("second"),
            folded: holders.take("folded"),
        };
        for (place, seat) in self.seats.iter_mut().enumerate() {
            let held = holders.take(&format!("held {place}"));
            seat.link = Link::with_parts(self.rules.precision, held, StateDict::new());
        }
    }

    /// The federation's model: what the clients received last, with what they folded into their weights in its pairs. Below
    /// 32 bits that is not quite what the server has.
    pub fn model(&self) -> StateDict {
        let mut model = self.global.model(&self.layout, self.rules.aggregation);
        if let Some(seat) = self.seats.first() {
            let (held, _) = seat.link.parts();
            model.extend(held.clone());
        }
        model
    }
}

/// A message to a client.
#[derive(Debug, Clone)]
struct OnItsWay {
    message: Arc<Vec<u8>>,
    squares: [f64; 2],
}

impl From<Sent> for OnItsWay {
    fn from(sent: Sent) -> Self {
        Self {
            message: Arc::new(sent.message),
            squares: sent.squares,
        }
    }
}

impl Round {
    /// Enters a message into the ledger, and its checksum.
    fn note(&mut self, site: &str, direction: Direction, message: &[u8], precision: Precision, layout: &Layout) {
        let round = self.record.round;
        let moment = match direction {
            Direction::Up | Direction::LeftOut => Moment::Sent,
            Direction::Down => Moment::Received,
        };
        let entries = entries(round, site, direction, message, precision, layout);
        self.entries.extend(entries);
        self.marks.push(Mark::of_message(round, site, moment, message));
    }
}

/// Says where in a federation something failed.
pub(super) fn at<E: Display>(round: usize, site: &str) -> impl Fn(E) -> Error {
    move |why| Error::Message(format!("client {site}, round {round}: {why}"))
}

/// The shape of a parameter at a client whose pairs are of this rank.
fn shape(spec: &Spec, rank: usize) -> Vec<usize> {
    match spec.role {
        Role::LoraA(_) => vec![rank, spec.shape[1]],
        Role::LoraB(_) => vec![spec.shape[0], rank],
        _ => spec.shape.clone(),
    }
}
