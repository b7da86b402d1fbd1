use std::io;
use std::path::{Path, PathBuf};

use flapsam_model::Error as ModelError;

/// Why the program could not run. Every message names the path, what was wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused a file.
    #[error("cannot {action} {}: {source}; {}", path.display(), remedy(source))]
    File {
        /// What was tried: "read", "write", ..
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// A file's content does not fit.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ModelError,
    },
    /// The same, in our own words.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// A setting that no file holds.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Anything else, with its remedy.
    #[error("{0}")]
    Message(String),
}

/// The result of whatever can fail for want of the right input.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn content(path: &Path) -> impl FnOnce(ModelError) -> Self {
        move |source| Error::Content {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn invalid(path: &Path, why: impl std::fmt::Display) -> Self {
        Error::Invalid {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a place where you may write, or change its permissions"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose another disk, and run the command again"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => "check whether a file or a folder is meant",
        _ => "check the disk and run the command again",
    }
}

/// A message as a terminal may show it: what it quotes of a file may be anybody's, and is no command to the terminal.
pub fn printable(message: &str) -> String {
    let shown = |character: char| match character {
        '\n' | '\t' => String::from(character),
        command if command.is_control() => command.escape_default().to_string(),
        plain => String::from(plain),
    };
    message.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_says_is_no_command_to_the_terminal() {
        assert_eq!(printable("'\u{1b}[2Ja\r' ä\n\tb"), "'\\u{1b}[2Ja\\r' ä\n\tb");
    }
}
