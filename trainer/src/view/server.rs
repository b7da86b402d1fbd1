//! HTTP on loopback, for one user's own browser.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use tiny_http::{Header, Method, Request, Response, ResponseBox};

use super::exhibit::{Content, Exhibit};
use crate::error::{Error, Result};

/// What the page may do: run its own scripts and WebAssembly, and fetch from here. Nothing from or to anywhere else.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; \
    connect-src 'self' blob: data:; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Requests that are answered at the same time: more than a browser makes of one host.
const THREADS: usize = 8;

/// Serves an exhibit.
pub struct Server {
    listener: tiny_http::Server,
    port: u16,
    contents: BTreeMap<String, Content>,
}

impl Server {
    /// Takes a port on loopback; 0 is any that is free.
    ///
    /// # Errors
    /// The port is taken.
    pub fn bind(exhibit: Exhibit, port: u16) -> Result<Self> {
        let refused = |why: String| {
            let why =
                format!("cannot listen on 127.0.0.1:{port} ({why}); pass another --port, or 0 for any that is free");
            Error::Message(why)
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = tiny_http::Server::http(address).map_err(|why| refused(why.to_string()))?;
        let port = listener.server_addr().to_ip().map_or(port, |address| address.port());
        Ok(Self {
            listener,
            port,
            contents: exhibit.contents,
        })
    }

    /// The page's address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Answers until the process ends.
    pub fn serve(&self) {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    while let Ok(request) = self.listener.recv() {
                        let answer = self.answer(&request);
                        // A browser that has gone away needs no answer.
                        let _ = request.respond(answer);
                    }
                });
            }
        });
    }

    fn answer(&self, request: &Request) -> ResponseBox {
        // Another host's name that was made to point here would let its pages read the run.
        let hosts = [format!("127.0.0.1:{}", self.port), format!("localhost:{}", self.port)];
        let asked = |name: &str| {
            let mut headers = request.headers().iter();
            let found = headers.find(|header| header.field.as_str().as_str().eq_ignore_ascii_case(name));
            found.map(|header| header.value.as_str().to_owned())
        };
        if !asked("Host").is_some_and(|host| hosts.contains(&host)) {
            return refusal(421, "this server answers to 127.0.0.1 only");
        }
        if !matches!(request.method(), Method::Get | Method::Head) {
            return refusal(405, "only GET");
        }
        let path = request.url().split(['?', '#']).next().unwrap_or_default();
        let address = match path.strip_prefix('/') {
            Some("") => "index.html",
            Some(address) => address,
            None => return refusal(404, "not found"),
        };
        match self.contents.get(address) {
            None => refusal(404, "not found"),
            Some(content) => content.respond(address, asked("If-None-Match").as_deref()),
        }
    }
}

impl Content {
    fn respond(&self, address: &str, known: Option<&str>) -> ResponseBox {
        let (path, sha256) = match self {
            Content::Bytes(bytes) => return dress(Response::from_data(bytes.clone()).boxed(), address, None),
            Content::File { path, sha256 } => (path, sha256),
        };
        let tag = sha256.as_ref().map(|sha256| format!("\"{sha256}\""));
        if tag.is_some() && tag.as_deref() == known {
            return dress(Response::empty(304).boxed(), address, tag);
        }
        match File::open(path) {
            Ok(file) => dress(
                Response::from_file(file).with_chunked_threshold(usize::MAX).boxed(),
                address,
                tag,
            ),
            Err(_) => refusal(404, "the file is gone"),
        }
    }
}

/// Adds the headers that every answer has.
fn dress(answer: ResponseBox, address: &str, tag: Option<String>) -> ResponseBox {
    // The names of what lies in assets/ hold a checksum of the content; all else may change under its name.
    let cache = match address.starts_with("assets/") {
        true => "public, max-age=31536000, immutable",
        false => "no-cache",
    };
    let mut headers = vec![
        ("Content-Type", mime(address).to_owned()),
        ("Cache-Control", cache.to_owned()),
        ("Content-Security-Policy", POLICY.to_owned()),
        ("X-Content-Type-Options", "nosniff".to_owned()),
        ("Referrer-Policy", "no-referrer".to_owned()),
        ("Cross-Origin-Resource-Policy", "same-origin".to_owned()),
    ];
    headers.extend(tag.map(|tag| ("ETag", tag)));
    let headers = headers.into_iter();
    let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok());
    headers.fold(answer, |answer, header| answer.with_header(header))
}

fn refusal(status: u16, why: &str) -> ResponseBox {
    let answer = Response::from_string(why).with_status_code(status).boxed();
    dress(answer, "refusal.txt", None)
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
