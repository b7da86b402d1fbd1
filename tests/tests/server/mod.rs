//! A small HTTP server on the loopback device that misbehaves as it is told, and remembers what it was asked.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A body without end has so many bytes: a client that takes them all has failed its test, and need not fill the disk.
const ENDLESS: usize = 64 << 20;

/// What one request is answered with.
#[derive(Clone)]
pub struct Reply {
    /// The whole content; a request for a range gets a part of it.
    pub content: Vec<u8>,
    /// Further fields of the head, such as an ETag.
    pub fields: Vec<(&'static str, String)>,
    /// The status, where it is not the one that the request calls for.
    pub status: Option<u16>,
    /// Whether a range is served at all.
    pub ranges: bool,
    /// Whether a range is served although the content has changed.
    pub ignores_if_range: bool,
    /// The beginning that Content-Range names, where it is not the one that was asked for.
    pub claimed_start: Option<usize>,
    /// The Content-Length, where it is not the body's.
    pub claimed_length: Option<usize>,
    /// Whether there is a Content-Length at all.
    pub promises_length: bool,
    /// A pause after each byte.
    pub drip: Option<Duration>,
    /// How the body ends.
    pub ending: Ending,
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its last byte.
    Whole,
    /// The server hangs up after so many bytes.
    Cut(usize),
    /// The server says nothing more after so many bytes, and does not hang up.
    Stall(usize),
    /// Never: zeros follow, and no length is promised.
    Endless,
}

impl Reply {
    /// An honest reply with an ETag made from the content.
    pub fn honest(content: &[u8]) -> Self {
        let etag = format!(
            "\"{}-{}\"",
            content.len(),
            content.iter().map(|b| u64::from(*b)).sum::<u64>()
        );
        Self::bare(content).field("ETag", &etag)
    }

    /// An honest reply that does not tell contents from each other.
    pub fn bare(content: &[u8]) -> Self {
        Reply {
            content: content.to_owned(),
            fields: Vec::new(),
            status: None,
            ranges: true,
            ignores_if_range: false,
            claimed_start: None,
            claimed_length: None,
            promises_length: true,
            drip: None,
            ending: Ending::Whole,
        }
    }

    /// A refusal, or another status without content.
    pub fn status(status: u16) -> Self {
        Reply {
            status: Some(status),
            ..Self::bare(b"")
        }
    }

    /// Sends the client elsewhere.
    pub fn redirect(location: &str) -> Self {
        Self::status(302).field("Location", location)
    }

    /// Adds a field to the head.
    pub fn field(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }

    /// Ends differently.
    pub fn ending(self, ending: Ending) -> Self {
        Reply { ending, ..self }
    }

    /// Serves no ranges.
    pub fn without_ranges(self) -> Self {
        Reply { ranges: false, ..self }
    }

    fn validates(&self, condition: &str) -> bool {
        let validators = ["ETag", "Last-Modified"];
        self.ignores_if_range
            || self
                .fields
                .iter()
                .any(|(name, value)| validators.contains(name) && value == condition)
    }

    /// The first byte that a request is to get, if it asks for a range and may have it.
    fn start(&self, request: &Request) -> Option<usize> {
        let range = request.range.as_ref().filter(|_| self.ranges)?;
        let fresh = request
            .if_range
            .as_ref()
            .is_none_or(|condition| self.validates(condition));
        let start = range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()?;
        fresh.then_some(start)
    }
}

/// What a client asked for, and what it got.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The path of the address.
    pub path: String,
    /// The Range field.
    pub range: Option<String>,
    /// The If-Range field.
    pub if_range: Option<String>,
    /// The Accept-Encoding field.
    pub accept_encoding: Option<String>,
    /// How many bytes of a body were sent.
    pub sent: usize,
}

/// The server; it lives as long as the test's process.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    replies: HashMap<String, Vec<Reply>>,
    requests: Vec<Request>,
}

impl Server {
    /// Starts one that knows no paths yet.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // A client that hangs up is no error here.
                thread::spawn(move || drop(answer(stream, &state)));
            }
        });
        Server { address, state }
    }

    /// Starts one with one path, and returns its address too.
    pub fn with(replies: impl IntoIterator<Item = Reply>) -> (Self, String) {
        let server = Self::start();
        server.serve("/scan.nii.gz", replies);
        let url = server.url("/scan.nii.gz");
        (server, url)
    }

    /// Answers the requests for a path, one after the other, from now on; the last reply is repeated.
    pub fn serve(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.state.lock().unwrap().replies.insert(path.to_owned(), replies);
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }

    /// How many bytes of bodies were sent so far.
    pub fn sent(&self) -> usize {
        self.requests().iter().map(|request| request.sent).sum()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let request = read_request(&stream)?;
    let (number, reply) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let replies = state.replies.get_mut(&request.path);
        let reply = match replies {
            Some(replies) if replies.len() > 1 => replies.remove(0),
            Some(replies) => replies[0].clone(),
            None => Reply::status(404),
        };
        (state.requests.len() - 1, reply)
    };
    let sent = |count: usize| state.lock().unwrap().requests[number].sent += count;
    write_reply(&mut stream, &request, &reply, &sent)?;
    stream.shutdown(Shutdown::Both)
}

fn read_request(stream: &TcpStream) -> std::io::Result<Request> {
    let mut request = Request::default();
    for (number, line) in BufReader::new(stream).lines().enumerate() {
        let line = line?;
        if number == 0 {
            request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        }
        let Some((name, value)) = line.split_once(": ") else {
            if line.is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.to_owned()),
            "if-range" => request.if_range = Some(value.to_owned()),
            "accept-encoding" => request.accept_encoding = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(request)
}

fn write_reply(stream: &mut TcpStream, request: &Request, reply: &Reply, sent: &dyn Fn(usize)) -> std::io::Result<()> {
    let whole = reply.content.len();
    let start = reply.start(request);
    let (natural, body) = match start {
        Some(start) if start >= whole => (416, &[][..]),
        Some(start) => (206, &reply.content[reply.claimed_start.unwrap_or(start)..]),
        None => (200, &reply.content[..]),
    };
    let status = reply.status.unwrap_or(natural);
    let mut head = format!("HTTP/1.1 {status} Whatever\r\nConnection: close\r\n");
    if status == 206 {
        let first = whole - body.len();
        head += &format!("Content-Range: bytes {first}-{}/{whole}\r\n", whole - 1);
    }
    if reply.promises_length && reply.ending != Ending::Endless {
        head += &format!("Content-Length: {}\r\n", reply.claimed_length.unwrap_or(body.len()));
    }
    for (name, value) in &reply.fields {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    write_body(stream, body, reply, sent)
}

/// Counts the bytes before they leave, so that a client that has them all finds them counted.
fn write_body(stream: &mut TcpStream, body: &[u8], reply: &Reply, sent: &dyn Fn(usize)) -> std::io::Result<()> {
    let end = match reply.ending {
        Ending::Cut(bytes) | Ending::Stall(bytes) => bytes.min(body.len()),
        Ending::Whole | Ending::Endless => body.len(),
    };
    let piece = reply.drip.map_or(1 << 16, |_| 1);
    for piece in body[..end].chunks(piece) {
        sent(piece.len());
        stream.write_all(piece)?;
        thread::sleep(reply.drip.unwrap_or_default());
    }
    match reply.ending {
        Ending::Whole | Ending::Cut(_) => Ok(()),
        // Until the client hangs up.
        Ending::Stall(_) => stream.read(&mut [0]).map(drop),
        Ending::Endless => (0..ENDLESS >> 16).try_for_each(|_| {
            sent(1 << 16);
            stream.write_all(&[0; 1 << 16])
        }),
    }
}
