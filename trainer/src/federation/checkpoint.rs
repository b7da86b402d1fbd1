use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::read_safetensors;
use flapsam_model::parameters::StateDict;
use serde::{Deserialize, Serialize};

use super::ledger::Entry;
use super::trace::Mark;
use super::wire::Link;
use super::{Federation, RoundRecord};
use crate::error::{Error, Result};
use crate::files::{create_folder, files_in, read, write_state_dict};
use crate::training::OptimizerState;

/// The folder of checkpoints in a run's own.
pub const CHECKPOINTS: &str = "checkpoints";
const METADATA_KEY: &str = "flapsam_checkpoint";
/// How many of the last checkpoints stay: should the newest be damaged, there is the one before.
const KEPT: usize = 2;

/// What a run knows after a round, apart from the tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// What the run is made of; a checkpoint of anything else is not gone on from.
    pub fingerprint: String,
    /// The untrained adapter's Dice by class.
    pub untrained_dice: Vec<f64>,
    /// The rounds so far.
    pub rounds: Vec<RoundRecord>,
    /// What travelled so far.
    pub entries: Vec<Entry>,
    /// Checksums along the way.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// Each client's optimizer steps so far.
    pub steps: Vec<usize>,
    /// Seconds of the clients' epochs so far, and of their waiting for data.
    pub seconds: [f64; 2],
    /// Seconds of the run so far, in all its starts.
    pub earlier_seconds: f64,
}

/// The folder of a run's checkpoints, one file a round: `round-00003.safetensors`.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The folder below a run's own.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(run: &Path) -> Result<Self> {
        let folder = run.join(CHECKPOINTS);
        create_folder(&folder)?;
        Ok(Self { folder })
    }

    /// Writes the state after a round, and removes what is older than the last two.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, checkpoint: &Checkpoint, federation: &Federation) -> Result<()> {
        let (tensors, steps) = state(federation);
        let checkpoint = Checkpoint {
            steps,
            ..checkpoint.clone()
        };
        let path = self
            .folder
            .join(format!("round-{:05}.safetensors", checkpoint.rounds.len()));
        // TOML, since it gives floats back to the last bit.
        let metadata = toml::to_string(&checkpoint).map_err(|why| Error::invalid(&path, why))?;
        write_state_dict(&path, &tensors, (METADATA_KEY, metadata))?;
        self.prune()
    }

    /// Removes what is older than the last two.
    fn prune(&self) -> Result<()> {
        for path in self.newest_first()?.into_iter().skip(KEPT) {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        Ok(())
    }

    /// Brings a fresh federation to the newest state that is whole; `None` if there is none. What a run that was killed
    /// between writing a checkpoint and removing the oldest left over goes too.
    ///
    /// # Errors
    /// The folder cannot be read, or that state is of another fingerprint.
    pub fn restore(&self, fingerprint: &str, federation: &mut Federation) -> Result<Option<Checkpoint>> {
        for path in self.newest_first()? {
            let Some((checkpoint, tensors)) = read_checkpoint(&path) else {
                eprintln!("flapsam: {} is damaged; going on from the round before", path.display());
                continue;
            };
            if checkpoint.fingerprint != fingerprint {
                let why = "it is of other settings, data or base, or of another program or device; pass another folder \
                           with --out, or --replace to move this one aside and start over";
                return Err(Error::invalid(&path, why));
            }
            put_back(federation, tensors, &checkpoint)?;
            self.prune()?;
            return Ok(Some(checkpoint));
        }
        Ok(None)
    }

    fn newest_first(&self) -> Result<Vec<PathBuf>> {
        let mut files = files_in(&self.folder)?;
        files.retain(|path| round_of(path).is_some());
        files.sort_by_key(|path| std::cmp::Reverse(round_of(path)));
        Ok(files)
    }
}

fn round_of(path: &Path) -> Option<usize> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("round-")?.strip_suffix(".safetensors")?.parse().ok()
}

/// `None` if the file is not whole.
fn read_checkpoint(path: &Path) -> Option<(Checkpoint, StateDict)> {
    let (tensors, metadata) = read_safetensors(&read(path).ok()?).ok()?;
    let metadata: HashMap<String, String> = metadata;
    let checkpoint = toml::from_str(metadata.get(METADATA_KEY)?).ok()?;
    Some((checkpoint, tensors))
}

/// All tensors of a federation under the names of their holders, and the clients' optimizer steps.
fn state(federation: &Federation) -> (StateDict, Vec<usize>) {
    let mut tensors = StateDict::new();
    let mut put = |holder: &str, part: StateDict| {
        tensors.extend(part.into_iter().map(|(key, array)| (format!("{holder}/{key}"), array)));
    };
    let server = &federation.server;
    put("server/state", server.state.clone());
    put("server/first", server.first.clone());
    put("server/second", server.second.clone());
    put("server/folded", server.folded.clone());
    let mut all_steps = Vec::new();
    for (place, member) in federation.members.iter().enumerate() {
        let (steps, optimizer) = member.client.optimizer_state();
        let (held, residual) = member.link.parts();
        // Mostly the server's state: kept once.
        let mut own = member.client.trained();
        own.retain(|key, array| server.state.get(key) != Some(array));
        put(&format!("client {place}/trained"), own);
        put(&format!("client {place}/first"), optimizer.first);
        put(&format!("client {place}/second"), optimizer.second);
        put(&format!("client {place}/counts"), optimizer.counts);
        put(&format!("client {place}/held"), held.clone());
        put(&format!("client {place}/residual"), residual.clone());
        all_steps.push(steps);
    }
    (tensors, all_steps)
}

/// The way back from [`state`].
fn put_back(federation: &mut Federation, tensors: StateDict, checkpoint: &Checkpoint) -> Result<()> {
    let mut holders: HashMap<String, StateDict> = HashMap::new();
    for (key, array) in tensors {
        // Two names of the holder, then the parameter's own, which has no slash.
        if let Some((holder, key)) = key.rsplit_once('/') {
            let part = holders.entry(holder.to_owned()).or_default();
            part.insert(key.to_owned(), array);
        }
    }
    let mut take = |holder: String| holders.remove(&holder).unwrap_or_default();
    let server = &mut federation.server;
    let server_state = take("server/state".into());
    server.state = server_state.clone();
    server.first = take("server/first".into());
    server.second = take("server/second".into());
    server.folded = take("server/folded".into());
    federation.fold(checkpoint.rounds.len())?;
    let precision = federation.precision();
    for (place, member) in federation.members.iter_mut().enumerate() {
        let mut trained = server_state.clone();
        trained.extend(take(format!("client {place}/trained")));
        member.client.receive(&trained);
        let [first, second, counts] = ["first", "second", "counts"].map(|part| take(format!("client {place}/{part}")));
        let steps = checkpoint.steps.get(place).copied().unwrap_or_default();
        let optimizer = OptimizerState { first, second, counts };
        member.client.restore_optimizer(steps, optimizer);
        let [held, residual] = ["held", "residual"].map(|part| take(format!("client {place}/{part}")));
        member.link = Link::with_parts(precision, held, residual);
    }
    Ok(())
}
