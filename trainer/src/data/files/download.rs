//! Downloads: one file over HTTP, resumed where it broke off, and put in its place only when whole and right.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use flapsam_model::checkpoint::hex;
use sha2::{Digest, Sha256};
use ureq::http::{HeaderName, Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::error::{Error, Result};
use crate::files::create_folder;

/// So many attempts in a row may bring no new byte before a download is given up.
const ATTEMPTS: u32 = 5;
/// The pause after the first of them; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// A server may ask for a longer pause, but not for one that looks like a hang.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Where nobody says how long a file is, it is not longer than this.
const MOST_BYTES: u64 = 64 << 30;

/// What is fetched.
#[derive(Debug, Clone, Copy)]
pub struct Download<'a> {
    /// Where it is, http or https.
    pub url: &'a str,
    /// Where it goes; what is there already is replaced, once the new file is whole.
    pub target: &'a Path,
    /// Its checksum, in hexadecimal, if it is known.
    pub sha256: Option<&'a str>,
    /// Its length, if it is known.
    pub bytes: Option<u64>,
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The length of the whole file.
    pub bytes: u64,
    /// The checksum of the whole file, in hexadecimal.
    pub sha256: String,
}

/// Fetches one file into its place.
///
/// The bytes go to `NAME.part` beside the target, which is renamed when it is whole and right. A `.part` that an
/// earlier call left is continued, provided that the server still has the same content. A server that says nothing for
/// as long as `stall`, or that hangs up, is asked for the rest again. `progress` is told, as bytes arrive, how many
/// there are and how many there will be, if that is known.
pub fn download(what: &Download, stall: Duration, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<Fetched> {
    let mut part = Part::open(what)?;
    match fetch(what, stall, &mut part, progress) {
        Ok(()) => part.finish(what.target),
        Err(error) => {
            part.leave(what);
            Err(error)
        }
    }
}

/// Why an attempt did not bring the whole file.
enum Failure {
    /// Another attempt may go on from here, after the pause that the server asks for.
    Again(String, Option<Duration>),
    /// These are not the bytes that are expected. If some are from an earlier attempt, a fresh one may bring the right
    /// ones.
    Wrong(Error),
    /// No further attempt can help.
    Stop(Error),
}

type Step<T> = std::result::Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Stop(error)
    }
}

fn fetch(what: &Download, stall: Duration, part: &mut Part, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<()> {
    // An earlier call may have been killed after the last byte and before the renaming.
    if what.sha256.is_some_and(|expected| part.has_checksum(expected)) {
        return Ok(());
    }
    let agent = agent(stall);
    let mut failures = 0;
    let mut started_over = false;
    loop {
        match attempt(&agent, what, part, progress).and_then(|()| check_sum(what, part)) {
            Ok(()) => return Ok(()),
            Err(Failure::Stop(error)) => return Err(error),
            Err(Failure::Wrong(error)) => {
                let stale = part.resumed && !started_over;
                part.start_over()?;
                if !stale {
                    return Err(error);
                }
                started_over = true;
            }
            Err(Failure::Again(why, asked)) => {
                failures = if part.take_grown() { 0 } else { failures + 1 };
                if failures == ATTEMPTS {
                    return Err(given_up(what, part, &why));
                }
                let own = FIRST_PAUSE * 2_u32.pow(failures.saturating_sub(1));
                thread::sleep(asked.unwrap_or_default().min(LONGEST_PAUSE).max(own));
            }
        }
    }
}

fn agent(stall: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        // Scans are kept compressed as they are, and their checksums are those of the compressed bytes.
        .accept_encoding("identity")
        .user_agent(concat!("flapsam/", env!("CARGO_PKG_VERSION")))
        // These begin anew with each read and write: a slow transfer may take as long as it likes.
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .timeout_resolve(Some(stall))
        .timeout_connect(Some(stall))
        .build()
        .new_agent()
}

/// Asks once, for the rest if there is a beginning, and takes what comes.
fn attempt(agent: &Agent, what: &Download, part: &mut Part, progress: &mut dyn FnMut(u64, Option<u64>)) -> Step<()> {
    if !part.can_be_resumed(what) {
        part.start_over()?;
    }
    let response = ask(agent, what, part)?;
    let total = match response.status() {
        StatusCode::OK => begin(&response, what, part)?,
        StatusCode::PARTIAL_CONTENT => resume(&response, part)?,
        _ => return Err(refused(&response, what)),
    };
    check_offer(what, total)?;
    receive(response.into_body(), what, total, part, progress)
}

fn ask(agent: &Agent, what: &Download, part: &mut Part) -> Step<Response<Body>> {
    let mut request = agent.get(what.url);
    if part.len > 0 {
        part.resumed = true;
        request = request.header(header::RANGE, format!("bytes={}-", part.len));
        if let Some(validator) = &part.validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    request.call().map_err(|why| match why {
        ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::InvalidProxyUrl
        | ureq::Error::TooManyRedirects
        | ureq::Error::RedirectFailed => Failure::Stop(Error::Message(format!(
            "{}: it cannot be asked for: {why}; check the address",
            what.url
        ))),
        why => Failure::Again(broken(&why.into_io()), None),
    })
}

/// The whole content comes, whether or not only the rest was asked for. Returns its length.
fn begin(response: &Response<Body>, what: &Download, part: &mut Part) -> Step<Option<u64>> {
    part.start_over()?;
    part.keep_validator(validator(response), what.url)?;
    Ok(field(response, header::CONTENT_LENGTH).and_then(|length| length.parse().ok()))
}

/// The rest comes, if it begins where we are and belongs to the same content. Returns the length of the whole.
fn resume(response: &Response<Body>, part: &mut Part) -> Step<Option<u64>> {
    let start_over = |part: &mut Part, why: &str| {
        part.start_over()?;
        Err(Failure::Again(why.to_owned(), None))
    };
    let range = field(response, header::CONTENT_RANGE).and_then(parse_content_range);
    let Some((_, total)) = range.filter(|(start, _)| *start == part.len) else {
        return start_over(part, "the server sent another part of the file than was asked for");
    };
    // A server that does not know If-Range sends the rest of whatever it has now.
    let (ours, theirs) = (&part.validator, validator(response));
    if ours.is_some() && theirs.is_some() && *ours != theirs {
        return start_over(part, "the file changed on the server");
    }
    // Bytes that follow those we have are new, even if an attempt that had to start over once came further.
    part.farthest = part.len;
    Ok(total)
}

/// The beginning and the whole length that `bytes 5-9/10` or `bytes 5-9/*` name.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    match total.trim() {
        "*" => Some((start, None)),
        total => Some((start, Some(total.parse().ok()?))),
    }
}

/// What tells this content from a later one: a strong ETag, or else the date. A weak ETag does not promise the same
/// bytes.
fn validator(response: &Response<Body>) -> Option<String> {
    let strong = field(response, header::ETAG).filter(|etag| etag.starts_with('"'));
    let validator = strong.or_else(|| field(response, header::LAST_MODIFIED));
    validator.map(str::to_owned)
}

fn field(response: &Response<Body>, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

fn refused(response: &Response<Body>, what: &Download) -> Failure {
    let (url, target, status) = (what.url, what.target.display(), response.status());
    let message = |why: &str| Error::Message(format!("{url}: the server answered {status}: {why}"));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Stop(message(&format!(
            "it does not give this file to everyone; open the address in a browser, accept the terms or log in, and \
             put the file at {target}"
        ))),
        StatusCode::NOT_FOUND | StatusCode::GONE => Failure::Stop(message(
            "there is no such file; check the address, and ask its publisher where the file is now",
        )),
        StatusCode::RANGE_NOT_SATISFIABLE => Failure::Wrong(message(
            "it has no such part of the file; run the command again to fetch the file from its beginning",
        )),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => again(response),
        _ if status.is_server_error() => again(response),
        _ => Failure::Stop(message(&format!(
            "this is not the file; open the address in a browser, and put the file at {target}"
        ))),
    }
}

fn again(response: &Response<Body>) -> Failure {
    let seconds = field(response, header::RETRY_AFTER).and_then(|text| text.parse().ok());
    let why = format!("the server answered {}", response.status());
    Failure::Again(why, seconds.map(Duration::from_secs))
}

/// Refuses a file of another length before its bytes travel.
fn check_offer(what: &Download, total: Option<u64>) -> Step<()> {
    match (what.bytes, total) {
        (Some(expected), Some(offered)) if offered != expected => {
            Err(wrong_length(what, expected, &format!("{offered} bytes")))
        }
        _ => Ok(()),
    }
}

fn wrong_length(what: &Download, expected: u64, offered: &str) -> Failure {
    Failure::Wrong(Error::invalid(
        what.target,
        format!(
            "it should have {expected} bytes, but {} offers {offered}; the file at this address has changed or \
             something on the way replaces it: open the address in a browser, and compare what it gives with what its \
             publisher promises",
            what.url
        ),
    ))
}

fn receive(
    body: Body,
    what: &Download,
    total: Option<u64>,
    part: &mut Part,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Step<()> {
    let expected = what.bytes.or(total);
    let most = expected.unwrap_or(MOST_BYTES);
    let mut body = body.into_reader();
    let mut piece = vec![0; 1 << 17];
    progress(part.len, expected);
    loop {
        let count = match body.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            // A server may be careless after the last byte.
            Err(_) if expected == Some(part.len) => break,
            Err(why) => return Err(Failure::Again(broken(&why), None)),
        };
        // Nothing past the expected length is written: a body without end does not fill the disk.
        if part.len + count as u64 > most {
            return Err(wrong_length(what, most, "more"));
        }
        part.append(&piece[..count])?;
        progress(part.len, expected);
    }
    match expected {
        Some(expected) if part.len < expected => Err(Failure::Again(
            format!("the server sent {} of {expected} bytes", part.len),
            None,
        )),
        _ => Ok(()),
    }
}

fn check_sum(what: &Download, part: &Part) -> Step<()> {
    let Some(expected) = what.sha256.filter(|expected| !part.has_checksum(expected)) else {
        return Ok(());
    };
    Err(Failure::Wrong(Error::invalid(
        what.target,
        format!(
            "what {} sent has the sha256 {}, not {expected}, and was deleted; run the command again, and if this \
             repeats, the file at this address has changed: ask its publisher",
            what.url,
            part.checksum()
        ),
    )))
}

/// Says what a transfer broke off of.
fn broken(why: &io::Error) -> String {
    let inner = why.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    match inner {
        Some(ureq::Error::Timeout(_)) => "the server said nothing for too long".to_owned(),
        _ => match why.kind() {
            ErrorKind::UnexpectedEof => "the server hung up".to_owned(),
            _ => why.to_string(),
        },
    }
}

fn given_up(what: &Download, part: &Part, why: &str) -> Error {
    let kept = match part.is_worth_keeping(what) {
        true => format!(" to go on from the {} bytes in {}", part.len, part.path.display()),
        false => String::new(),
    };
    Error::Message(format!(
        "{}: given up after {ATTEMPTS} attempts without a new byte: {why}; check the network, and run the command again\
         {kept}",
        what.url
    ))
}

/// The file that is being filled, and what is known about it.
struct Part {
    path: PathBuf,
    /// Where the validator is kept, so that a later call can tell whether the content is still the same.
    sidecar: PathBuf,
    file: File,
    len: u64,
    hash: Sha256,
    validator: Option<String>,
    /// Some bytes may be from another content than the last ones.
    resumed: bool,
    /// How far this call has come: bytes before this have travelled already.
    farthest: u64,
    grown: bool,
}

impl Part {
    /// Opens what an earlier call left, or an empty one.
    fn open(what: &Download) -> Result<Self> {
        let Some(name) = what.target.file_name() else {
            return Err(Error::invalid(what.target, "it names no file; pass a file's path"));
        };
        let folder = what.target.parent().unwrap_or(Path::new(""));
        if folder != Path::new("") {
            create_folder(folder)?;
        }
        let beside = |ending: &str| {
            let mut name = name.to_owned();
            name.push(ending);
            folder.join(name)
        };
        let path = beside(".part");
        let sidecar = beside(".part.validator");
        let mut part = Part {
            file: open_alone(&path)?,
            validator: read_validator(&sidecar, what.url),
            path,
            sidecar,
            len: 0,
            hash: Sha256::new(),
            resumed: false,
            farthest: 0,
            grown: false,
        };
        part.read_whole()?;
        Ok(part)
    }

    /// Hashes what is there, which leaves the file's position at its end.
    fn read_whole(&mut self) -> Result<()> {
        let mut piece = vec![0; 1 << 20];
        loop {
            match self.file.read(&mut piece).map_err(Error::file("read", &self.path))? {
                0 => return Ok(()),
                count => {
                    self.hash.update(&piece[..count]);
                    self.len += count as u64;
                }
            }
        }
    }

    /// Whether the bytes that are missing can be told from those of a changed file: by the server, which is given the
    /// validator, or in the end by the checksum.
    fn can_be_resumed(&self, what: &Download) -> bool {
        // One that is full already, and yet not right, has nothing missing.
        let open = what.bytes.is_none_or(|bytes| self.len < bytes);
        open && (self.validator.is_some() || what.sha256.is_some())
    }

    fn is_worth_keeping(&self, what: &Download) -> bool {
        self.len > 0 && self.can_be_resumed(what)
    }

    fn start_over(&mut self) -> Result<()> {
        self.forget_validator()?;
        self.file.set_len(0).map_err(Error::file("empty", &self.path))?;
        self.file.rewind().map_err(Error::file("empty", &self.path))?;
        self.len = 0;
        self.hash = Sha256::new();
        self.resumed = false;
        Ok(())
    }

    fn forget_validator(&mut self) -> Result<()> {
        self.validator = None;
        match fs::remove_file(&self.sidecar) {
            Err(why) if why.kind() != ErrorKind::NotFound => Err(Error::file("delete", &self.sidecar)(why)),
            _ => Ok(()),
        }
    }

    /// Keeps the validator before the first byte of its content, so that none can be taken for another's.
    fn keep_validator(&mut self, validator: Option<String>, url: &str) -> Result<()> {
        if let Some(validator) = &validator {
            let text = format!("{url}\n{validator}\n");
            fs::write(&self.sidecar, text).map_err(Error::file("write", &self.sidecar))?;
        }
        self.validator = validator;
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> Result<()> {
        self.file.write_all(piece).map_err(Error::file("write", &self.path))?;
        self.hash.update(piece);
        self.len += piece.len() as u64;
        if self.len > self.farthest {
            self.farthest = self.len;
            self.grown = true;
        }
        Ok(())
    }

    /// Whether new bytes have come since this was last asked.
    fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    fn checksum(&self) -> String {
        hex(&self.hash.clone().finalize())
    }

    fn has_checksum(&self, expected: &str) -> bool {
        self.checksum().eq_ignore_ascii_case(expected)
    }

    /// Puts the whole file in its place.
    fn finish(mut self, target: &Path) -> Result<Fetched> {
        self.file.sync_all().map_err(Error::file("write", &self.path))?;
        let fetched = Fetched {
            bytes: self.len,
            sha256: self.checksum(),
        };
        self.forget_validator()?;
        // Closed first: some systems do not rename open files.
        drop(self.file);
        fs::rename(&self.path, target).map_err(Error::file("write", target))?;
        Ok(fetched)
    }

    /// Leaves what a later call can go on from, and nothing else.
    fn leave(mut self, what: &Download) {
        if self.is_worth_keeping(what) {
            return;
        }
        // The error that led here is the one to report.
        let _ = self.forget_validator();
        drop(self.file);
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a file, kept as it is if it is there, that no other program fills at the same time.
fn open_alone(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(Error::file("write", path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::invalid(
            path,
            "another program is filling it; wait until it is done, and run the command again",
        )),
        // Not every file system knows locks.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The validator that an earlier call kept, if it was for the same address. A damaged one is none.
fn read_validator(sidecar: &Path, url: &str) -> Option<String> {
    let text = fs::read_to_string(sidecar).ok()?;
    let validator = text.strip_prefix(url)?.strip_prefix('\n')?.strip_suffix('\n')?;
    let printable = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    (!validator.is_empty() && validator.bytes().all(printable)).then(|| validator.to_owned())
}
