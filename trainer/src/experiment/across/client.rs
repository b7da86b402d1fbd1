use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::sha256;
use flapsam_model::parameters::StateDict;
use serde::{Deserialize, Serialize};

use super::{Brings, Enrolment, HandedIn, Order, agreement, check, of_file};
use crate::device::OpenDevice;
use crate::error::{Error, Result};
use crate::experiment::runner::{ADAPTER, Run};
use crate::experiment::{CaseScores, Experiment};
use crate::federation::envelope::{Agreement, open, seal};
use crate::federation::fixed_point::to_bytes;
use crate::federation::wire::{decode, encode};
use crate::federation::{Checkpoints, Folding, Global, Holders, Member, Rules, Secret, fold};
use crate::files::{read, write, write_json, write_secret};
use crate::folder_lock::FolderLock;

/// The last update, in a site's folder.
const UPDATE: &str = "update.safetensors";
/// What it adds to the sum, where the server learns sums alone.
const ADDEND: &str = "addend.bin";
/// Where a site's noise comes from. It never leaves the folder.
const SECRET: &str = "noise.secret";
/// What the finished model came to at the site.
const REPORT: &str = "report.json";

/// A site's client: its own cases, and a folder in which it goes on from round to round.
pub struct SiteClient {
    run: Run,
    agreement: Agreement,
    rules: Rules,
    member: Member,
    folding: Option<Folding>,
    /// What has been folded into the weights so far.
    folded: StateDict,
    past: Past,
    folder: PathBuf,
    checkpoints: Checkpoints,
    _lock: FolderLock,
}

/// What a client knows of its rounds so far, apart from the tensors.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Past {
    /// The last one that it trained in.
    round: usize,
    /// The optimizer's steps.
    steps: usize,
}

/// What a site hands in after a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The update: a file for the server.
    pub update: Vec<u8>,
    /// With secure aggregation the update holds no parameters. These are they, as integers that are to be summed up over all
    /// sites by whoever shows the server the sum alone: see [`crate::federation::fixed_point::to_bytes`].
    pub addend: Option<Vec<u8>>,
}

/// What the finished model came to on a site's own test cases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteReport {
    /// The site.
    pub site: String,
    /// Name of each class, background first.
    pub classes: Vec<String>,
    /// Mean Dice by foreground class.
    pub dice: Vec<f64>,
    /// Case by case.
    pub cases: Vec<CaseScores>,
    /// sha256 of the adapter.
    pub adapter_sha256: String,
}

impl SiteClient {
    /// A site's client, as its folder has it.
    ///
    /// # Errors
    /// A file is missing or does not fit; the folder belongs to another experiment, or another process works in it.
    pub fn open(
        experiment: &Experiment,
        site: &str,
        seed: u64,
        data_root: &Path,
        device: &OpenDevice,
        folder: &Path,
    ) -> Result<Self> {
        check(experiment)?;
        let lock = FolderLock::take(folder)?;
        let run = Run::prepare(experiment, seed, data_root, device, Some(site))?;
        let agreement = agreement(experiment, &run.network, &run.manifest.classes, seed);
        let rules = experiment.rules(seed);
        let mut member = run.member(&run.sites[0], &rules)?;
        if rules.privacy.is_some() {
            member.secret = secret(folder)?;
        }
        let checkpoints = Checkpoints::open(folder, sha256(format!("{}\n{site}", run.fingerprint()).as_bytes()))?;
        Ok(Self {
            folding: run.folding(),
            run,
            agreement,
            rules,
            member,
            folded: StateDict::new(),
            past: Past::default(),
            folder: folder.to_owned(),
            checkpoints,
            _lock: lock,
        })
    }

    /// What the site enters the federation with.
    pub fn enrolment(&self) -> Vec<u8> {
        let site = &self.run.sites[0];
        let enrolment = Enrolment {
            site: site.name.clone(),
            slices: site.slices(),
            device: self.run.device.name.clone(),
            agreement: self.agreement.clone(),
            settings: self.run.experiment.deciding_settings(),
        };
        seal(&enrolment, &encode(&StateDict::new(), self.rules.precision))
    }

    /// Whether the server learns the sum of what sites say, and no site's own.
    pub fn has_secure_aggregation(&self) -> bool {
        self.rules.secure_aggregation
    }

    /// Trains the round that an order asks for, and returns the update. Asked again for the same, it returns the same.
    ///
    /// # Errors
    /// The order is none for this site, or training fails.
    pub fn round(&mut self, order: &Path) -> Result<Answer> {
        let bytes = read(order)?;
        let (asked, state) = self.understand(order, &bytes)?;
        let answered = sha256(&bytes);
        if let Some((last, update)) = self.last_answer() {
            if self.answers(&last, &asked, &answered) {
                return Ok(update);
            }
            if let Some(why) = self.tells_too_much(&last, &asked) {
                return Err(Error::invalid(order, why));
            }
        }
        if asked.round > self.rules.rounds {
            let why = format!(
                "all {} rounds are trained; 'flapsam client finish' takes the finished model over",
                self.rules.rounds
            );
            return Err(Error::invalid(order, why));
        }
        self.take_over(order, &asked, &state)?;
        let epoch = self.member.train(asked.round, &self.rules)?;
        eprintln!(
            "round {} of {}, site {}: loss {:.4} in {:.0} s",
            asked.round, self.rules.rounds, self.member.client.site, epoch.loss, epoch.seconds
        );
        let share = match (self.rules.secure_aggregation, asked.share) {
            (true, None) => {
                return Err(Error::invalid(
                    order,
                    "it does not say which share in the sum this site has",
                ));
            }
            (_, share) => share.unwrap_or(1.0),
        };
        let said = self
            .rules
            .handed_in(self.member.said(asked.round, &self.rules), share)?;
        let mut update = self.member.hand_in(asked.round, &said, epoch, &self.rules)?;
        let addend = self.rules.secure_aggregation.then(|| to_bytes(&said));
        if let Some(addend) = &addend {
            update.message = encode(&StateDict::new(), self.rules.precision);
            write(&self.folder.join(ADDEND), addend)?;
        }
        let handed_in = HandedIn {
            agreement: self.agreement.clone(),
            order: answered,
            update,
        };
        let update = seal(&handed_in, &handed_in.update.message);
        // First the update: should the program be killed before the checkpoint, the round is trained again to the same.
        write(&self.folder.join(UPDATE), &update)?;
        self.save(asked.round)?;
        Ok(Answer { update, addend })
    }

    /// Takes the finished model over, writes its adapter into the site's folder and judges it on the site's test cases.
    ///
    /// # Errors
    /// The order is not the last one, or a case cannot be read.
    pub fn finish(&mut self, order: &Path) -> Result<SiteReport> {
        let bytes = read(order)?;
        let (asked, state) = self.understand(order, &bytes)?;
        if asked.round != self.rules.rounds + 1 {
            let why = format!(
                "it asks for round {} of {}; 'flapsam client round' trains it",
                asked.round, self.rules.rounds
            );
            return Err(Error::invalid(order, why));
        }
        self.take_over(order, &asked, &state)?;
        let global = Global {
            state: self.member.client.trained(),
            folded: self.folded.clone(),
            ..Global::default()
        };
        let (network, aggregation) = (&self.run.network, self.rules.aggregation);
        let state = global.model(&network.layout(network.rank())?, aggregation);
        let (adapter, cases) = self.run.judge_state(state)?;
        write(&self.folder.join(ADAPTER), &adapter)?;
        let report = SiteReport {
            site: self.member.client.site.clone(),
            classes: self.run.manifest.classes.clone(),
            dice: crate::experiment::evaluation::mean_dice(cases.iter()),
            cases,
            adapter_sha256: sha256(&adapter),
        };
        write_json(&self.folder.join(REPORT), &report)?;
        Ok(report)
    }

    /// An order, and the message that comes with it.
    fn understand(&self, path: &Path, bytes: &[u8]) -> Result<(Order, Vec<u8>)> {
        let (order, state) = of_file(path, open::<Order>(bytes))?;
        match self.agreement.difference(&order.agreement) {
            Some(why) => Err(Error::invalid(path, why)),
            None => Ok((order, state)),
        }
    }

    /// What was handed in last: what the update says of itself, and all of it.
    fn last_answer(&self) -> Option<(HandedIn, Answer)> {
        let update = read(&self.folder.join(UPDATE)).ok()?;
        let (last, _) = open::<HandedIn>(&update).ok()?;
        let addend = match self.rules.secure_aggregation {
            true => Some(read(&self.folder.join(ADDEND)).ok()?),
            false => None,
        };
        Some((last, Answer { update, addend }))
    }

    /// Whether the last update was handed in for this very order.
    fn answers(&self, last: &HandedIn, asked: &Order, answered: &str) -> bool {
        let same = last.update.round == asked.round && last.order == answered && last.agreement == self.agreement;
        // Last, since it reads all tensors: mostly the update is another round's.
        let trained = || self.checkpoints.restore::<Past>(asked.round).ok().flatten();
        same && trained().is_some_and(|(past, _)| past.round == asked.round)
    }

    /// Why an order may not be answered where noise hides the site's data: each round's epsilon is for one answer.
    fn tells_too_much(&self, last: &HandedIn, asked: &Order) -> Option<String> {
        self.rules.privacy?;
        let last = last.update.round;
        (asked.round <= last).then(|| {
            format!(
                "it asks for round {}, and this site has answered another order of round {last}; with [privacy] a round is \
                 answered once, since every answer more tells more than the epsilon says",
                asked.round
            )
        })
    }

    /// Brings the client to where a round begins.
    fn take_over(&mut self, path: &Path, asked: &Order, state: &[u8]) -> Result<()> {
        let before = asked.round - 1;
        if let Some((past, tensors)) = self.checkpoints.restore::<Past>(before)? {
            self.restore(past, tensors)?;
        }
        match asked.brings {
            Brings::Nothing if asked.round == 1 => Ok(()),
            Brings::LastRound if self.past.round != before => Err(Error::invalid(
                path,
                format!(
                    "it goes on from round {before}, and this site's folder {} is at round {}; give it the folder that it \
                     trained in, or have the coordinating site leave it out of a round, after which it sends the whole state",
                    self.folder.display(),
                    self.past.round
                ),
            )),
            Brings::LastRound | Brings::Whole => self.receive(path, before, state),
            Brings::Nothing => Err(Error::invalid(
                path,
                "it brings no state, and this is not the first round",
            )),
        }
    }

    fn receive(&mut self, path: &Path, round: usize, state: &[u8]) -> Result<()> {
        self.member.receive(state, &self.rules)?;
        let Some(folding) = &self.folding else {
            return Ok(());
        };
        let network = &self.run.network;
        let layout = network.layout(network.rank())?;
        fold(
            &mut self.folded,
            &of_file(path, decode(state))?,
            self.rules.aggregation,
            &layout,
        );
        self.member
            .fold(round, &folding.weights(&self.folded, &layout)?, &self.rules);
        Ok(())
    }

    fn save(&self, round: usize) -> Result<()> {
        let (steps, mut tensors) = self.member.state(&StateDict::new());
        tensors.put("folded", self.folded.clone());
        self.checkpoints.save(round, &Past { round, steps }, tensors)
    }

    fn restore(&mut self, past: Past, mut tensors: Holders) -> Result<()> {
        self.folded = tensors.take("folded");
        if let Some(folding) = self.folding.as_ref().filter(|_| !self.folded.is_empty()) {
            let layout = self.run.network.layout(self.run.network.rank())?;
            self.member
                .fold(past.round, &folding.weights(&self.folded, &layout)?, &self.rules);
        }
        self.member.restore(past.steps, tensors, &StateDict::new(), &self.rules);
        self.past = past;
        Ok(())
    }
}

/// The secret in a site's folder; a new one, of the system's randomness, if there is none yet.
fn secret(folder: &Path) -> Result<Secret> {
    let path = folder.join(SECRET);
    if !path.exists() {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|why| Error::Message(format!("no random numbers for noise: {why}")))?;
        write_secret(&path, &bytes)?;
    }
    let bytes = read(&path)?;
    match bytes.len() >= 32 {
        true => Ok(Secret::of_site(bytes)),
        false => Err(Error::invalid(
            &path,
            "it is shorter than 32 bytes; remove it, and a new one is made",
        )),
    }
}
