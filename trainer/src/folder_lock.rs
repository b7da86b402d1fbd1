//! One process at a time writes into a folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files::create_folder;

/// A folder's file that says who writes into it.
pub const LOCK: &str = ".flapsam.lock";

/// A folder that no other process writes into until this is dropped or the process dies, however it dies.
#[derive(Debug)]
pub struct FolderLock {
    /// Closing it gives the folder free.
    _file: File,
}

impl FolderLock {
    /// Takes a folder, which is made if it is not there.
    ///
    /// # Errors
    /// Another process has it, or the folder cannot be written.
    pub fn take(folder: &Path) -> Result<Self> {
        create_folder(folder)?;
        let path = folder.join(LOCK);
        let failed = |why| Error::file("write", &path)(why);
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Where a system keeps others from reading a locked file, its owner stays unnamed.
                let _ = file.read_to_string(&mut owner);
                let owner = if owner.trim().is_empty() {
                    "another process"
                } else {
                    owner.trim()
                };
                let why = format!("{owner} writes into it; wait until it is done or stop it, or choose another folder");
                return Err(Error::invalid(folder, why));
            }
            Err(TryLockError::Error(why)) => {
                eprintln!(
                    "flapsam: {} is on a file system without locks ({why}): see to it that no other process writes there",
                    folder.display()
                );
            }
        }
        let command: Vec<String> = std::env::args_os()
            .skip(1)
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        let owner = format!("process {} (flapsam {})\n", std::process::id(), command.join(" "));
        let written = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(owner.as_bytes()));
        written.map_err(failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        let first = FolderLock::take(&below).unwrap();
        let refused = FolderLock::take(&below).unwrap_err().to_string();
        assert!(
            refused.contains(&format!("process {} ", std::process::id())),
            "{refused}"
        );
        drop(first);
        FolderLock::take(&below).unwrap();
    }
}
