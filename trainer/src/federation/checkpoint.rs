use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use flapsam_model::checkpoint::read_safetensors;
use flapsam_model::parameters::StateDict;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{create_folder, files_in, read, write_state_dict};

/// The folder of checkpoints in a run's own.
pub const CHECKPOINTS: &str = "checkpoints";
const METADATA_KEY: &str = "flapsam_checkpoint";
/// How many of the last checkpoints stay: should the newest be damaged, there is the one before.
const KEPT: usize = 2;

/// The tensors of a checkpoint, by who holds them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Holders(BTreeMap<String, StateDict>);

impl Holders {
    /// Notes a holder's tensors.
    pub fn put(&mut self, holder: &str, tensors: StateDict) {
        self.0.insert(holder.to_owned(), tensors);
    }

    /// A holder's tensors; none if it has none.
    pub fn take(&mut self, holder: &str) -> StateDict {
        self.0.remove(holder).unwrap_or_default()
    }

    /// All of another one's, with this before each holder's name.
    pub fn put_all(&mut self, before: &str, others: Holders) {
        let named = others.0.into_iter();
        self.0
            .extend(named.map(|(holder, tensors)| (format!("{before}{holder}"), tensors)));
    }

    /// The way back from [`Holders::put_all`].
    pub fn take_all(&mut self, before: &str) -> Holders {
        let mut taken = BTreeMap::new();
        let names: Vec<String> = self.0.keys().filter(|name| name.starts_with(before)).cloned().collect();
        for name in names {
            if let Some(tensors) = self.0.remove(&name) {
                taken.insert(name[before.len()..].to_owned(), tensors);
            }
        }
        Holders(taken)
    }

    /// One file's tensors: each under its holder's name and its own, which has no slash.
    fn into_tensors(self) -> StateDict {
        let named = |(holder, tensors): (String, StateDict)| {
            let tensors = tensors.into_iter();
            tensors.map(move |(key, array)| (format!("{holder}/{key}"), array))
        };
        self.0.into_iter().flat_map(named).collect()
    }

    /// The way back from [`Holders::into_tensors`].
    fn from_tensors(tensors: StateDict) -> Self {
        let mut holders: BTreeMap<String, StateDict> = BTreeMap::new();
        for (key, array) in tensors {
            if let Some((holder, key)) = key.rsplit_once('/') {
                let part = holders.entry(holder.to_owned()).or_default();
                part.insert(key.to_owned(), array);
            }
        }
        Self(holders)
    }
}

/// What is known after a round, apart from the tensors.
#[derive(Debug, Serialize, Deserialize)]
struct Saved<T> {
    /// What it is made of; a checkpoint of anything else is not gone on from.
    fingerprint: String,
    known: T,
}

/// A folder of checkpoints, one file a round: `round-00003.safetensors`.
#[derive(Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    fingerprint: String,
}

impl Checkpoints {
    /// The folder below another one, and what its checkpoints are of.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn open(above: &Path, fingerprint: String) -> Result<Self> {
        let folder = above.join(CHECKPOINTS);
        create_folder(&folder)?;
        Ok(Self { folder, fingerprint })
    }

    /// Writes what is known after a round, and removes what is older than the last two.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save<T: Serialize>(&self, round: usize, known: &T, holders: Holders) -> Result<()> {
        let path = self.folder.join(format!("round-{round:05}.safetensors"));
        let saved = Saved {
            fingerprint: self.fingerprint.clone(),
            known,
        };
        // TOML, since it gives floats back to the last bit.
        let metadata = toml::to_string(&saved).map_err(|why| Error::invalid(&path, why))?;
        write_state_dict(&path, &holders.into_tensors(), (METADATA_KEY, metadata))?;
        self.prune()
    }

    /// Removes what is older than the last two.
    fn prune(&self) -> Result<()> {
        for path in self.newest_first()?.into_iter().skip(KEPT) {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        Ok(())
    }

    /// The newest that is whole and of no later round than this; `None` if there is none. What a program that was killed between writing a checkpoint and
    /// removing the oldest left over goes too.
    ///
    /// # Errors
    /// The folder cannot be read, or that checkpoint is of another fingerprint.
    pub fn restore<T: DeserializeOwned>(&self, last: usize) -> Result<Option<(T, Holders)>> {
        let files = self.newest_first()?;
        for path in files.into_iter().filter(|path| round_of(path) <= Some(last)) {
            let Some((saved, tensors)) = read_checkpoint::<T>(&path) else {
                eprintln!("flapsam: {} is damaged; going on from the round before", path.display());
                continue;
            };
            if saved.fingerprint != self.fingerprint {
                let why = "it is of other settings, data or base, or of another program or device; pass another folder \
                           with --out, or --replace to move this one aside and start over";
                return Err(Error::invalid(&path, why));
            }
            self.prune()?;
            return Ok(Some((saved.known, Holders::from_tensors(tensors))));
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
fn read_checkpoint<T: DeserializeOwned>(path: &Path) -> Option<(Saved<T>, StateDict)> {
    let (tensors, metadata) = read_safetensors(&read(path).ok()?).ok()?;
    let metadata: HashMap<String, String> = metadata;
    let saved = toml::from_str(metadata.get(METADATA_KEY)?).ok()?;
    Some((saved, tensors))
}
