//! HTTP on loopback, for one user's own browser.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use super::exhibit::{Content, Exhibit};
use crate::error::{Error, Result};

/// What the page may do: run its own scripts and WebAssembly, and fetch from here. Nothing from or to anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; \
    connect-src 'self' blob: data:; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Threads that answer.
const THREADS: usize = 8;
/// Connections at a time: fewer than the files that a process may have open by default. More wait for a place.
const CONNECTIONS: usize = 512;
/// How long a request's headers may take to arrive.
const FOR_HEADERS: Duration = Duration::from_secs(3);
/// How long a connection may stand still, while it is asked for nothing or takes nothing of an answer.
const FOR_NOTHING: Duration = Duration::from_secs(30);
/// Bytes of a request's headers: many times those of any browser.
const MOST_HEADERS: usize = 64 << 10;
/// Bytes of a file that are sent at a time.
const PIECE: usize = 256 << 10;

/// Serves an exhibit.
pub struct Server {
    listener: TcpListener,
    pages: Arc<Pages>,
}

/// What is served, and as whom.
struct Pages {
    port: u16,
    contents: BTreeMap<String, Content>,
}

impl Server {
    /// Takes a port on loopback; 0 is any that is free.
    ///
    /// # Errors
    /// The port is taken.
    pub fn bind(exhibit: Exhibit, port: u16) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let bound = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?.port(), listener))
        });
        let (port, listener) = bound.map_err(|why| {
            let why =
                format!("cannot listen on 127.0.0.1:{port} ({why}); pass another --port, or 0 for any that is free");
            Error::Message(why)
        })?;
        let contents = exhibit.contents;
        Ok(Self {
            listener,
            pages: Arc::new(Pages { port, contents }),
        })
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.pages.port)
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    /// The system gives no threads or no network.
    pub fn serve(self) -> Result<()> {
        let failed = |why: io::Error| Error::Message(format!("the page cannot be served ({why}); try again"));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(THREADS).enable_all().build().map_err(failed)?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener).map_err(failed)?;
            let places = Arc::new(Semaphore::new(CONNECTIONS));
            loop {
                let Ok(place) = places.clone().acquire_owned().await else {
                    return Ok(());
                };
                match listener.accept().await {
                    Ok((connection, _)) => {
                        let pages = self.pages.clone();
                        tokio::spawn(async move {
                            // A browser that has gone away needs no answer.
                            let _ = pages.talk(connection).await;
                            drop(place);
                        });
                    }
                    // No files left for it, or it has gone already.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
    }
}

impl Pages {
    /// Answers the requests of a connection.
    async fn talk(self: Arc<Self>, connection: TcpStream) -> hyper::Result<()> {
        let mut connection = TimeoutStream::new(connection);
        connection.set_read_timeout(Some(FOR_NOTHING));
        connection.set_write_timeout(Some(FOR_NOTHING));
        let answer = service_fn(|request: Request<Incoming>| {
            let answer = self.answer(&request);
            async { Ok::<_, Infallible>(answer) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(FOR_HEADERS)
            .max_buf_size(MOST_HEADERS)
            .serve_connection(TokioIo::new(Box::pin(connection)), answer)
            .await
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Answer> {
        // Another host's name that was made to point here would let its pages read the run.
        let hosts = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        let asked = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        if !asked(header::HOST).is_some_and(|host| hosts.iter().any(|own| own == host)) {
            return refusal(StatusCode::MISDIRECTED_REQUEST, "this server answers to 127.0.0.1 only");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        let own = request.uri().authority().is_none();
        let address = match request.uri().path().strip_prefix('/').filter(|_| own) {
            Some("") => "index.html",
            Some(address) => address,
            None => return refusal(StatusCode::NOT_FOUND, "not found"),
        };
        match self.contents.get(address) {
            None => refusal(StatusCode::NOT_FOUND, "not found"),
            Some(content) => content.respond(address, asked(header::IF_NONE_MATCH)),
        }
    }
}

/// An answer's content.
enum Answer {
    Bytes(Bytes),
    File { file: File, left: u64 },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match self.get_mut() {
            Answer::Bytes(bytes) if bytes.is_empty() => None,
            Answer::Bytes(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Answer::File { left: 0, .. } => None,
            Answer::File { file, left } => {
                let mut piece = vec![0; PIECE.min(usize::try_from(*left).unwrap_or(PIECE))];
                Some(match file.read(&mut piece) {
                    // It has become shorter than was promised.
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => {
                        piece.truncate(count);
                        *left -= count as u64;
                        Ok(Frame::data(piece.into()))
                    }
                    Err(why) => Err(why),
                })
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Answer::Bytes(bytes) => bytes.len() as u64,
            Answer::File { left, .. } => *left,
        })
    }
}

impl Content {
    fn respond(&self, address: &str, known: Option<&str>) -> Response<Answer> {
        let (path, sha256) = match self {
            Content::Bytes(bytes) => return dress(Answer::Bytes(bytes.clone().into()), address, None),
            Content::File { path, sha256 } => (path, sha256),
        };
        let tag = sha256.as_ref().map(|sha256| format!("\"{sha256}\""));
        if tag.is_some() && tag.as_deref() == known {
            let mut same = dress(Answer::Bytes(Bytes::new()), address, tag);
            *same.status_mut() = StatusCode::NOT_MODIFIED;
            return same;
        }
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((left, file)) => dress(Answer::File { file, left }, address, tag),
            Err(_) => refusal(StatusCode::NOT_FOUND, "the file is gone"),
        }
    }
}

/// Adds the headers that every answer has.
fn dress(answer: Answer, address: &str, tag: Option<String>) -> Response<Answer> {
    // The names of what lies in assets/ hold a checksum of the content; all else may change under its name.
    let cache = match address.starts_with("assets/") {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let mut answer = Response::new(answer);
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, mime(address)),
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Some(tag) = tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
        headers.insert(header::ETAG, tag);
    }
    answer
}

fn refusal(status: StatusCode, why: &'static str) -> Response<Answer> {
    let mut answer = dress(Answer::Bytes(Bytes::from_static(why.as_bytes())), "refusal.txt", None);
    *answer.status_mut() = status;
    answer
}

fn mime(address: &str) -> &'static str {
    match address.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "wasm" => "application/wasm",
        "woff2" => "font/woff2",
        // Not as a gzipped answer, which the browser would unpack before its checksum is taken.
        "gz" => "application/gzip",
        _ => "application/octet-stream",
    }
}
