use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flapsam_model::parameters::{Array, StateDict};
use serde::{Deserialize, Serialize};

use super::{Brings, Enrolment, HandedIn, Order, agreement, check, of_file};
use crate::data::manifest::Manifest;
use crate::error::{Error, Result};
use crate::experiment::network::Network;
use crate::experiment::runner::{ADAPTER, LEDGER};
use crate::experiment::{Experiment, TRACE};
use crate::federation::envelope::{Agreement, open, seal};
use crate::federation::fixed_point::from_bytes;
use crate::federation::ledger::Entry;
use crate::federation::trace::Mark;
use crate::federation::wire::{Precision, encode};
use crate::federation::{Checkpoints, Inbox, Invited, RoundRecord, Server, Update};
use crate::files::{csv_table, read, write};
use crate::folder_lock::FolderLock;

/// The folder of orders in the server's own.
const ORDERS: &str = "orders";

/// The coordinating site's server, with a folder in which it goes on from round to round. It needs no scan.
pub struct Coordinator {
    experiment: Experiment,
    network: Network,
    agreement: Agreement,
    start: StateDict,
    seed: u64,
    folder: PathBuf,
    checkpoints: Checkpoints,
    begun: Option<Begun>,
    _lock: FolderLock,
}

/// A federation whose sites are known.
struct Begun {
    server: Server,
    past: Past,
}

/// What the server knows of its rounds so far, apart from the tensors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Past {
    sites: Vec<Site>,
    rounds: Vec<RoundRecord>,
    entries: Vec<Entry>,
    marks: Vec<Mark>,
}

/// What is known of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Site {
    name: String,
    slices: Vec<usize>,
    device: String,
}

/// Where a federation stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// The round that its sites are to train next; one more than there are when all are trained.
    pub round: usize,
    /// How many rounds there are.
    pub rounds: usize,
    /// Whether all are trained: then the orders are for 'flapsam client finish'.
    pub finished: bool,
    /// Whether updates hold no parameters, and the sum of what sites add goes with them.
    pub secure_aggregation: bool,
    /// All its sites.
    pub sites: Vec<String>,
    /// The order for each site that has something to do.
    pub orders: BTreeMap<String, PathBuf>,
    /// Mean training loss of the sites in the round before.
    pub loss: BTreeMap<String, f64>,
    /// The sites whose updates were not used in the round before, and why.
    pub left_out: BTreeMap<String, String>,
}

/// A round's updates, each in a file.
struct Files<'a> {
    paths: &'a [PathBuf],
    agreement: &'a Agreement,
}

impl Inbox for Files<'_> {
    fn count(&self) -> usize {
        self.paths.len()
    }

    fn update(&self, at: usize) -> Result<Cow<'_, Update>> {
        let path = &self.paths[at];
        let (handed_in, message) = of_file(path, open::<HandedIn>(&read(path)?))?;
        let site = &handed_in.update.site;
        if let Some(why) = self.agreement.difference(&handed_in.agreement) {
            return Err(Error::invalid(path, format!("site '{site}': {why}")));
        }
        Ok(Cow::Owned(Update {
            message,
            ..handed_in.update
        }))
    }
}

/// A round's updates without their parameters, and the sum of these. It stands in the first update, with zeros in the others:
/// they come to the same.
struct Summed<'a> {
    files: Files<'a>,
    sum: Vec<u8>,
    zeros: Vec<u8>,
}

impl Inbox for Summed<'_> {
    fn count(&self) -> usize {
        self.files.count()
    }

    fn update(&self, at: usize) -> Result<Cow<'_, Update>> {
        let update = self.files.update(at)?.into_owned();
        let message = if at == 0 { &self.sum } else { &self.zeros };
        Ok(Cow::Owned(Update {
            message: message.clone(),
            ..update
        }))
    }
}

/// As many zeros.
fn zeros(like: &StateDict) -> StateDict {
    let zeros = |array: &Array| Array::new(array.shape.clone(), vec![0.0; array.values.len()]);
    like.iter().map(|(key, array)| (key.clone(), zeros(array))).collect()
}

impl Coordinator {
    /// The server of an experiment, as its folder has it.
    ///
    /// # Errors
    /// A file is missing or does not fit; the folder belongs to another experiment, or another process works in it.
    pub fn open(experiment: &Experiment, seed: u64, data_root: &Path, folder: &Path) -> Result<Self> {
        check(experiment)?;
        let lock = FolderLock::take(folder)?;
        let classes = Manifest::read(&experiment.manifest(data_root))?.classes;
        let (network, state) = Network::begin(experiment, &classes, seed, data_root)?;
        let agreement = agreement(experiment, &network, &classes, seed);
        let trained = experiment.method.trained(&network.layout(network.rank())?);
        let start = state.into_iter().filter(|(key, _)| trained.contains(key)).collect();
        let checkpoints = Checkpoints::open(folder, agreement.fingerprint())?;
        let mut coordinator = Self {
            experiment: experiment.clone(),
            network,
            agreement,
            start,
            seed,
            folder: folder.to_owned(),
            checkpoints,
            begun: None,
            _lock: lock,
        };
        if let Some((past, tensors)) = coordinator.checkpoints.restore::<Past>(experiment.rounds)? {
            let mut server = coordinator.server(&past.sites)?;
            server.restore(tensors, past.rounds.last());
            coordinator.begun = Some(Begun { server, past });
        }
        Ok(coordinator)
    }

    /// Where the federation stands; `None` before its sites are known.
    pub fn standing(&self) -> Option<Standing> {
        let Begun { server, past } = self.begun.as_ref()?;
        let round = past.rounds.len() + 1;
        let finished = round > self.experiment.rounds;
        let all = 0..server.seats.len();
        let chosen = match finished {
            true => all.collect(),
            false => server.participants(round),
        };
        let order = |place: usize| {
            let file = self.order_file(server, round, place).1;
            (server.seats[place].site.clone(), file)
        };
        let last = past.rounds.last();
        Some(Standing {
            round,
            rounds: self.experiment.rounds,
            finished,
            secure_aggregation: self.experiment.secure_aggregation,
            sites: past.sites.iter().map(|site| site.name.clone()).collect(),
            orders: chosen.into_iter().map(order).collect(),
            loss: last.map_or_else(BTreeMap::new, |last| last.loss.clone()),
            left_out: last.map_or_else(BTreeMap::new, |last| last.left_out.clone()),
        })
    }

    /// Begins with these sites.
    ///
    /// # Errors
    /// It has begun with others, two are of one name, or one's program, base or settings are not the server's.
    pub fn begin(&mut self, enrolments: &[PathBuf]) -> Result<Standing> {
        let mut sites = Vec::new();
        for path in enrolments {
            let (enrolment, _) = of_file(path, open::<Enrolment>(&read(path)?))?;
            self.compare(path, &enrolment)?;
            sites.push(Site {
                name: enrolment.site,
                slices: enrolment.slices,
                device: enrolment.device,
            });
        }
        sites.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = sites.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let why = format!("two sites enrol as '{}'; give each a name of its own", pair[0].name);
            return Err(Error::invalid(&self.folder, why));
        }
        if sites.is_empty() {
            return Err(Error::invalid(
                &self.folder,
                "no site has enrolled; pass their enrolments",
            ));
        }
        if let Some(stranger) = self
            .experiment
            .ranks
            .keys()
            .find(|name| !sites.iter().any(|site| site.name == **name))
        {
            let why = format!("[ranks] has a site '{stranger}', and it has not enrolled");
            return Err(Error::invalid(&self.experiment.path, why));
        }
        match &self.begun {
            Some(begun) if begun.past.sites != sites => {
                let names: Vec<&str> = begun.past.sites.iter().map(|site| site.name.as_str()).collect();
                let why = format!(
                    "it has begun with other sites or other data of theirs ({}); give them back, or choose another folder",
                    names.join(", ")
                );
                return Err(Error::invalid(&self.folder, why));
            }
            Some(_) => {}
            None => {
                let server = self.server(&sites)?;
                let past = Past {
                    sites,
                    ..Past::default()
                };
                self.settle(Begun { server, past }, &[])?;
            }
        }
        self.standing_now()
    }

    /// Makes the next state of the updates of a round; with secure aggregation, of the sum of what their sites add.
    ///
    /// # Errors
    /// No round is under way, or an update is missing, or is not what its site would hand in; there is no sum where there
    /// should be one, or one where there should be none.
    pub fn aggregate(&mut self, paths: &[PathBuf], sum: Option<&Path>) -> Result<Standing> {
        let Some(Begun { server, past }) = self.begun.take() else {
            let why = "its sites are not known yet; 'flapsam server begin' takes their enrolments";
            return Err(Error::invalid(&self.folder, why));
        };
        let (mut server, mut past) = (server, past);
        let round = past.rounds.len() + 1;
        if round > self.experiment.rounds {
            return Err(Error::invalid(&self.folder, "all its rounds are trained"));
        }
        let files = Files {
            paths,
            agreement: &self.agreement,
        };
        let came = match (sum, self.experiment.secure_aggregation) {
            (None, false) => server.aggregate(round, &files)?,
            (Some(path), true) => {
                let like = server.expected(round);
                let sum = of_file(path, from_bytes(&read(path)?, &like))?;
                let [sum, zeros] = [sum, zeros(&like)].map(|state| encode(&state, Precision::F32));
                server.aggregate(round, &Summed { files, sum, zeros })?
            }
            (None, true) => {
                let why = "with secure_aggregation its sites' updates hold no parameters; pass the sum of their addends as --sum";
                return Err(Error::invalid(&self.experiment.path, why));
            }
            (Some(path), false) => {
                let why = "the experiment has no secure_aggregation: its sites' updates hold their parameters, and there is no sum";
                return Err(Error::invalid(path, why));
            }
        };
        past.rounds.push(came.round.record);
        past.entries.extend(came.round.entries);
        past.marks.extend(came.round.marks);
        self.settle(Begun { server, past }, &came.messages)?;
        self.standing_now()
    }

    fn standing_now(&self) -> Result<Standing> {
        let unknown = || Error::invalid(&self.folder, "its sites are not known yet");
        self.standing().ok_or_else(unknown)
    }

    /// A server before its first round.
    fn server(&self, sites: &[Site]) -> Result<Server> {
        let layout = self.network.layout(self.network.rank())?;
        let invited = sites.iter().map(|site| Invited {
            site: &site.name,
            slices: &site.slices,
            rank: self.network.rank_of(&site.name, &self.experiment),
        });
        let invited: Vec<Invited> = invited.collect();
        Ok(Server::new(
            self.experiment.rules(self.seed),
            layout,
            &self.start,
            &invited,
        ))
    }

    fn compare(&self, path: &Path, enrolment: &Enrolment) -> Result<()> {
        let Some(why) = self.agreement.difference(&enrolment.agreement) else {
            return Ok(());
        };
        let differing = self.experiment.differing_settings(&enrolment.settings);
        let which = match differing.is_empty() {
            true => String::new(),
            false => format!("; its settings differ in {}", differing.join(", ")),
        };
        Err(Error::invalid(path, format!("site '{}': {why}{which}", enrolment.site)))
    }

    /// The order for a client: what state it brings, and the file it is in, which many may share.
    fn order_file(&self, server: &Server, round: usize, place: usize) -> (Brings, PathBuf) {
        let rules = server.rules();
        let one_for_all = rules.precision == Precision::F32 && !rules.secure_aggregation;
        let name = |common: &str| match one_for_all {
            true => format!("{common}.safetensors"),
            false => format!("client-{place:05}.safetensors"),
        };
        let (brings, name) = match (round, server.is_current(place)) {
            (1, _) => (Brings::Nothing, name("first")),
            (_, true) => (Brings::LastRound, name("last-round")),
            (_, false) => (Brings::Whole, name("whole")),
        };
        let folder = self.folder.join(ORDERS).join(format!("round-{round:05}"));
        (brings, folder.join(name))
    }

    /// Writes down where the federation stands: the orders first, then that they are so; after the last round the results.
    fn settle(&mut self, begun: Begun, messages: &[std::sync::Arc<Vec<u8>>]) -> Result<()> {
        let Begun { server, past } = &begun;
        let round = past.rounds.len() + 1;
        let places = 0..server.seats.len();
        let files: BTreeMap<PathBuf, (Brings, usize)> = places
            .map(|place| {
                let (brings, path) = self.order_file(server, round, place);
                (path, (brings, place))
            })
            .collect();
        for (path, (brings, place)) in files {
            let secure = self.experiment.secure_aggregation;
            let order = Order {
                agreement: self.agreement.clone(),
                round,
                brings,
                share: secure.then(|| server.seats[place].weight),
            };
            let bytes = match brings {
                Brings::Nothing => seal(&order, &encode(&StateDict::new(), server.rules().precision)),
                Brings::LastRound => seal(&order, &messages[place]),
                Brings::Whole => seal(&order, &server.whole_state()),
            };
            write(&path, &bytes)?;
        }
        if past.rounds.len() == self.experiment.rounds {
            self.finish(server, past)?;
        }
        self.checkpoints.save(past.rounds.len(), past, server.state())?;
        self.begun = Some(begun);
        Ok(())
    }

    /// The adapter, the ledger and the trace: the same bytes as those of a run in one process.
    fn finish(&self, server: &Server, past: &Past) -> Result<()> {
        let write_to = |name: &str, bytes: &[u8]| write(&self.folder.join(name), bytes);
        if !self.experiment.has_personal_models() {
            let adapter = self.network.adapter_of(server.model())?;
            write_to(ADAPTER, &adapter.to_bytes())?;
        }
        write_to(LEDGER, &csv_table(&past.entries)?)?;
        let masks = self.folder.join("predictions");
        let trace = crate::experiment::trace::text(&past.marks, &self.folder, &masks)?;
        write_to(TRACE, trace.as_bytes())
    }
}
