//! Downloads from servers that misbehave, and archives that mean harm: what is whole and right arrives, and nothing
//! else ever lies at its place.

mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use flapsam::data::files::archive::{Limits, unpack};
use flapsam::data::files::download::{Download, Fetched, download};
use flate2::Crc;
use flate2::write::{DeflateEncoder, GzEncoder};
use server::{Ending, Reply, Server};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How long a server may say nothing.
const STALL: Duration = Duration::from_millis(300);

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that differ from place to place, so that a resume at the wrong one shows.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i / 7 + i / 251) as u8).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A place for one file.
struct Place {
    folder: TempDir,
    target: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let target = folder.path().join("scan.nii.gz");
        Place { folder, target }
    }

    fn part(&self) -> PathBuf {
        self.folder.path().join("scan.nii.gz.part")
    }

    fn sidecar(&self) -> PathBuf {
        self.folder.path().join("scan.nii.gz.part.validator")
    }

    fn what<'a>(&'a self, url: &'a str) -> Download<'a> {
        Download {
            url,
            target: &self.target,
            sha256: None,
            bytes: None,
        }
    }

    /// Expects this very content at the target, and nothing beside it.
    fn fetches(&self, what: &Download, expected: &[u8]) {
        let fetched = download(what, STALL, &mut |_, _| {}).unwrap();
        assert_eq!(
            fetched,
            Fetched {
                bytes: expected.len() as u64,
                sha256: sha256(expected),
            }
        );
        assert!(fs::read(&self.target).unwrap() == expected, "the content differs");
        assert_eq!(
            names(self.folder.path()),
            ["scan.nii.gz"],
            "nothing else is left behind"
        );
    }

    /// Expects a refusal that leaves nothing at the target, and returns what it said.
    fn refuses(&self, what: &Download) -> String {
        let said = download(what, STALL, &mut |_, _| {}).unwrap_err().to_string();
        assert!(!self.target.exists(), "nothing lies at the target");
        assert!(said.contains(what.url), "the address is named: {said}");
        said
    }

    fn is_empty(&self) -> bool {
        names(self.folder.path()).is_empty()
    }
}

#[test]
fn a_whole_file() {
    let content = content(300_000);
    let (server, url) = Server::with([Reply::honest(&content)]);
    let place = Place::new();
    fs::write(&place.target, "an older file").unwrap();
    let sum = sha256(&content).to_uppercase();
    let what = Download {
        sha256: Some(&sum),
        bytes: Some(300_000),
        ..place.what(&url)
    };
    place.fetches(&what, &content);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].range, None);
    assert_eq!(server.requests()[0].accept_encoding.as_deref(), Some("identity"));
}

#[test]
fn folders_are_created() {
    let (_server, url) = Server::with([Reply::honest(b"scan")]);
    let place = Place::new();
    let target = place.folder.path().join("a/b/scan");
    let what = Download {
        target: &target,
        ..place.what(&url)
    };
    download(&what, STALL, &mut |_, _| {}).unwrap();
    assert_eq!(fs::read(target).unwrap(), b"scan");
}

#[test]
fn an_empty_file() {
    let (_server, url) = Server::with([Reply::honest(b"")]);
    let place = Place::new();
    place.fetches(&place.what(&url), b"");
}

#[test]
fn progress_counts_up_to_the_total() {
    let (_server, url) = Server::with([Reply::honest(&content(300_000))]);
    let place = Place::new();
    let mut told = Vec::new();
    download(&place.what(&url), STALL, &mut |done, total| told.push((done, total))).unwrap();
    assert!(told.is_sorted() && told.len() > 2, "{told:?}");
    assert_eq!(told.first(), Some(&(0, Some(300_000))));
    assert_eq!(told.last(), Some(&(300_000, Some(300_000))));
}

#[test]
fn compressed_files_stay_compressed() {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&content(5000)).unwrap();
    let compressed = encoder.finish().unwrap();
    // Some servers call the file's own compression an encoding of the transfer.
    let (_server, url) = Server::with([Reply::honest(&compressed).field("Content-Encoding", "gzip")]);
    let place = Place::new();
    place.fetches(&place.what(&url), &compressed);
}

#[test]
fn a_cut_connection_is_resumed() {
    let content = content(300_000);
    let honest = Reply::honest(&content);
    let cut = |bytes| honest.clone().ending(Ending::Cut(bytes));
    let (server, url) = Server::with([cut(100_000), cut(0), cut(50_000), honest.clone()]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    let ranges: Vec<_> = server.requests().into_iter().map(|request| request.range).collect();
    let rest = |from: &str| Some(format!("bytes={from}-"));
    assert_eq!(ranges, [None, rest("100000"), rest("100000"), rest("150000")]);
    assert_eq!(server.requests()[1].if_range.as_ref(), Some(&honest.fields[0].1));
    assert_eq!(server.sent(), content.len(), "no byte travels twice");
}

#[test]
fn many_cuts_are_survived_as_long_as_bytes_arrive() {
    let content = content(1000);
    let (server, url) = Server::with([Reply::honest(&content).ending(Ending::Cut(120))]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests().len(), 9);
}

#[test]
fn a_stall_is_resumed() {
    let content = content(2000);
    let honest = Reply::honest(&content);
    let (server, url) = Server::with([honest.clone().ending(Ending::Stall(700)), honest]);
    let place = Place::new();
    let start = Instant::now();
    place.fetches(&place.what(&url), &content);
    assert!(start.elapsed() >= STALL);
    assert_eq!(server.requests()[1].range.as_deref(), Some("bytes=700-"));
    assert_eq!(server.sent(), content.len());
}

#[test]
fn a_server_that_stalls_forever_is_given_up() {
    let (server, url) = Server::with([Reply::honest(&content(2000)).ending(Ending::Stall(0))]);
    let place = Place::new();
    let said = place.refuses(&place.what(&url));
    assert!(
        said.contains("said nothing") && said.contains("check the network"),
        "{said}"
    );
    assert_eq!(server.requests().len(), 5);
    assert!(place.is_empty(), "nothing is kept of nothing");
}

#[test]
fn a_later_call_fetches_only_the_rest() {
    let content = content(10_000);
    let cut = Reply::honest(&content).ending(Ending::Cut(4000));
    let (server, url) = Server::with([cut, Reply::honest(&content).ending(Ending::Cut(0))]);
    let place = Place::new();
    let said = place.refuses(&place.what(&url));
    assert!(said.contains("hung up") && said.contains("4000 bytes"), "{said}");
    assert_eq!(server.requests().len(), 6, "five attempts after the last new byte");
    assert_eq!(fs::read(place.part()).unwrap(), content[..4000]);
    assert!(place.sidecar().exists());

    server.serve("/scan.nii.gz", [Reply::honest(&content)]);
    let mut first = None;
    download(&place.what(&url), STALL, &mut |done, _| {
        first.get_or_insert(done);
    })
    .unwrap();
    assert_eq!(first, Some(4000));
    assert_eq!(fs::read(&place.target).unwrap(), content);
    assert_eq!(names(place.folder.path()), ["scan.nii.gz"]);
    assert_eq!(server.requests()[6].range.as_deref(), Some("bytes=4000-"));
    assert_eq!(server.sent(), content.len(), "no byte travels twice");
}

#[test]
fn a_slow_server_is_waited_for() {
    let content = content(24);
    let drip = Some(Duration::from_millis(50));
    let (server, url) = Server::with([Reply {
        drip,
        ..Reply::honest(&content)
    }]);
    let place = Place::new();
    let start = Instant::now();
    place.fetches(&place.what(&url), &content);
    assert!(start.elapsed() > 3 * STALL);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_length_that_is_never_reached() {
    let reply = Reply {
        claimed_length: Some(1500),
        ..Reply::honest(&content(1000))
    };
    let (server, url) = Server::with([reply]);
    let place = Place::new();
    let said = place.refuses(&place.what(&url));
    assert!(said.contains("416") && said.contains("again"), "{said}");
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .map(|request| request.range.is_some())
        .collect();
    assert_eq!(ranges, [false, true, false, true], "it starts over once");
    assert!(place.is_empty());
}

#[test]
fn another_length_than_expected_is_refused_at_once() {
    for offered in [900, 1100] {
        let (server, url) = Server::with([Reply::honest(&content(offered))]);
        let place = Place::new();
        let what = Download {
            bytes: Some(1000),
            ..place.what(&url)
        };
        let said = place.refuses(&what);
        assert!(
            said.contains("1000 bytes") && said.contains(&format!("{offered} bytes")),
            "{said}"
        );
        assert!(said.contains("scan.nii.gz:"), "the target is named: {said}");
        assert_eq!(server.requests().len(), 1);
        assert!(place.is_empty());
    }
}

#[test]
fn a_promised_length_below_the_real_one() {
    let content = content(1000);
    let reply = Reply {
        claimed_length: Some(500),
        ..Reply::honest(&content)
    };
    let (_server, url) = Server::with([reply]);
    let place = Place::new();
    let sum = sha256(&content);
    let what = Download {
        sha256: Some(&sum),
        ..place.what(&url)
    };
    assert!(place.refuses(&what).contains(&sha256(&content[..500])));
    assert!(place.is_empty());
}

#[test]
fn a_body_without_end_is_stopped() {
    let (server, url) = Server::with([Reply::honest(b"").ending(Ending::Endless)]);
    let place = Place::new();
    let what = Download {
        bytes: Some(1_000_000),
        ..place.what(&url)
    };
    let mut most = 0;
    let said = download(&what, STALL, &mut |done, _| most = most.max(done)).unwrap_err();
    assert!(said.to_string().contains("1000000 bytes"), "{said}");
    assert!(most <= 1_000_000, "{most} bytes were written");
    assert_eq!(server.requests().len(), 1);
    assert!(place.is_empty());
}

#[test]
fn a_body_without_a_promised_length_that_breaks_off_is_resumed() {
    let content = content(1000);
    // Without a promised length, a cut looks like an end; only the expected length tells them apart.
    let cut = Reply {
        promises_length: false,
        ..Reply::honest(&content).ending(Ending::Cut(400))
    };
    let (server, url) = Server::with([cut, Reply::honest(&content)]);
    let place = Place::new();
    let what = Download {
        bytes: Some(1000),
        ..place.what(&url)
    };
    place.fetches(&what, &content);
    assert_eq!(server.requests()[1].range.as_deref(), Some("bytes=400-"));
}

#[test]
fn wrong_bytes_are_refused() {
    let (right, wrong) = (content(1000), vec![7; 1000]);
    let (server, url) = Server::with([Reply::honest(&wrong)]);
    let place = Place::new();
    let sum = sha256(&right);
    let what = Download {
        sha256: Some(&sum),
        bytes: Some(1000),
        ..place.what(&url)
    };
    let said = place.refuses(&what);
    for part in [&sum, &sha256(&wrong), "scan.nii.gz:", "run the command again"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(server.requests().len(), 1, "the same wrong bytes are not fetched twice");
    assert!(place.is_empty());
}

#[test]
fn a_stale_part_is_replaced_once() {
    let content = content(1000);
    let sum = sha256(&content);
    for (served, requests) in [(content.clone(), 2), (vec![7; 1000], 2)] {
        let (server, url) = Server::with([Reply::honest(&served)]);
        let place = Place::new();
        fs::write(place.part(), [1; 300]).unwrap();
        let what = Download {
            sha256: Some(&sum),
            ..place.what(&url)
        };
        match served == content {
            true => place.fetches(&what, &content),
            false => {
                place.refuses(&what);
                assert!(place.is_empty());
            }
        }
        let asked = server.requests();
        assert_eq!(asked.len(), requests);
        assert_eq!(asked[0].range.as_deref(), Some("bytes=300-"));
        assert_eq!(asked[0].if_range, None, "there was no validator");
        assert_eq!(asked[1].range, None);
    }
}

#[test]
fn a_part_that_nothing_vouches_for_is_not_continued() {
    let content = content(1000);
    let (server, url) = Server::with([Reply::honest(&content)]);
    let place = Place::new();
    fs::write(place.part(), &content[..300]).unwrap();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests()[0].range, None);
}

#[test]
fn a_validator_of_another_address_is_not_used() {
    let content = content(1000);
    let reply = Reply::honest(&content);
    let (server, url) = Server::with([reply.clone()]);
    let place = Place::new();
    fs::write(place.part(), [1; 300]).unwrap();
    fs::write(place.sidecar(), format!("http://elsewhere/\n{}\n", reply.fields[0].1)).unwrap();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests()[0].range, None);
}

#[test]
fn a_damaged_validator_is_not_used() {
    let content = content(1000);
    let (server, url) = Server::with([Reply::honest(&content)]);
    for damaged in ["", "\"1", "\"1\r\nX: y\"\n", "\n", "\u{e9}\n"] {
        let place = Place::new();
        fs::write(place.part(), [1; 300]).unwrap();
        fs::write(place.sidecar(), format!("{url}\n{damaged}")).unwrap();
        place.fetches(&place.what(&url), &content);
        assert_eq!(server.requests().last().unwrap().range, None, "{damaged:?}");
    }
}

#[test]
fn a_part_that_is_whole_already_needs_no_server() {
    let content = content(1000);
    let place = Place::new();
    fs::write(place.part(), &content).unwrap();
    fs::write(place.sidecar(), "anything").unwrap();
    let sum = sha256(&content);
    let what = Download {
        sha256: Some(&sum),
        ..place.what("http://127.0.0.1:1/")
    };
    place.fetches(&what, &content);
}

#[test]
fn a_part_as_long_as_the_file_and_wrong_is_not_continued() {
    let content = content(1000);
    let (server, url) = Server::with([Reply::honest(&content)]);
    for length in [1000, 1200] {
        let place = Place::new();
        fs::write(place.part(), vec![1; length]).unwrap();
        let sum = sha256(&content);
        let what = Download {
            sha256: Some(&sum),
            bytes: Some(1000),
            ..place.what(&url)
        };
        place.fetches(&what, &content);
        assert_eq!(server.requests().last().unwrap().range, None);
    }
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_range_beyond_the_file_starts_over() {
    let content = content(1000);
    let (server, url) = Server::with([Reply::honest(&content)]);
    let place = Place::new();
    fs::write(place.part(), vec![1; 1200]).unwrap();
    let sum = sha256(&content);
    let what = Download {
        sha256: Some(&sum),
        ..place.what(&url)
    };
    place.fetches(&what, &content);
    let ranges: Vec<_> = server.requests().into_iter().map(|request| request.range).collect();
    assert_eq!(ranges, [Some("bytes=1200-".to_owned()), None]);
}

#[test]
fn a_server_without_ranges_starts_from_zero() {
    let content = content(1000);
    let honest = Reply::honest(&content).without_ranges();
    let (server, url) = Server::with([honest.clone().ending(Ending::Cut(600)), honest]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.sent(), 1600);
}

#[test]
fn a_server_without_ranges_that_always_cuts_off_is_given_up() {
    let reply = Reply::honest(&content(1000)).without_ranges();
    // The refusal in the end is for a client that would go on forever.
    let cuts = std::iter::repeat_n(reply.ending(Ending::Cut(600)), 10);
    let (server, url) = Server::with(cuts.chain([Reply::status(404)]));
    let place = Place::new();
    place.refuses(&place.what(&url));
    assert_eq!(server.requests().len(), 6, "the same bytes again are no new bytes");
}

#[test]
fn a_file_that_changes_in_between_is_fetched_anew() {
    let (old, new) = (vec![7; 1500], content(1000));
    let cut = Reply::honest(&old).ending(Ending::Cut(600));
    let deaf = Reply {
        ignores_if_range: true,
        ..Reply::honest(&new)
    };
    for (later, requests) in [(Reply::honest(&new), 2), (deaf, 3)] {
        let (server, url) = Server::with([cut.clone(), later]);
        let place = Place::new();
        place.fetches(&place.what(&url), &new);
        assert_eq!(server.requests()[1].range.as_deref(), Some("bytes=600-"));
        assert_eq!(server.requests().len(), requests);
    }
}

#[test]
fn new_bytes_of_a_changed_file_count_as_new() {
    let content = content(1000);
    let old = Reply::honest(&[7; 1500]).ending(Ending::Cut(900));
    let (server, url) = Server::with([old, Reply::honest(&content).ending(Ending::Cut(125))]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    assert_eq!(
        server.requests().len(),
        9,
        "it is not given up before it is as far as it was"
    );
}

#[test]
fn the_date_vouches_where_there_is_no_strong_etag() {
    let content = content(1000);
    let date = "Tue, 01 Jul 2025 10:00:00 GMT";
    let dated = Reply::bare(&content)
        .field("ETag", "W/\"1\"")
        .field("Last-Modified", date);
    let (server, url) = Server::with([dated.clone().ending(Ending::Cut(600)), dated]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests()[1].if_range.as_deref(), Some(date));
    assert_eq!(server.sent(), 1000);
}

#[test]
fn a_weak_etag_vouches_for_nothing() {
    let content = content(1000);
    let weak = Reply::bare(&content).field("ETag", "W/\"1\"");
    let (server, url) = Server::with([weak.clone().ending(Ending::Cut(600)), weak]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests()[1].range, None);
}

#[test]
fn another_range_than_asked_for_starts_over() {
    let content = content(1000);
    let honest = Reply::honest(&content);
    let elsewhere = Reply {
        claimed_start: Some(700),
        ..honest.clone()
    };
    let (server, url) = Server::with([honest.clone().ending(Ending::Cut(600)), elsewhere, honest]);
    let place = Place::new();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests().len(), 3);
    assert_eq!(server.requests()[2].range, None);
}

#[test]
fn refusals_are_final() {
    for (status, hint) in [
        (404, "check the address"),
        (403, "log in"),
        (401, "log in"),
        (410, "publisher"),
        (418, "browser"),
    ] {
        let (server, url) = Server::with([Reply::status(status)]);
        let place = Place::new();
        let said = place.refuses(&place.what(&url));
        assert!(said.contains(&status.to_string()) && said.contains(hint), "{said}");
        assert_eq!(server.requests().len(), 1, "{status}");
        assert!(place.is_empty());
    }
}

#[test]
fn a_refusal_keeps_what_is_there() {
    let content = content(1000);
    let cut = Reply::honest(&content).ending(Ending::Cut(600));
    let (server, url) = Server::with([cut, Reply::status(403)]);
    let place = Place::new();
    place.refuses(&place.what(&url));
    server.serve("/scan.nii.gz", [Reply::honest(&content)]);
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.sent(), 1000);
}

#[test]
fn a_busy_server_is_asked_again() {
    let content = content(1000);
    let busy = Reply::status(429).field("Retry-After", "1");
    let (server, url) = Server::with([Reply::status(503), busy, Reply::honest(&content)]);
    let place = Place::new();
    let start = Instant::now();
    place.fetches(&place.what(&url), &content);
    assert_eq!(server.requests().len(), 3);
    assert!(start.elapsed() >= Duration::from_secs(1), "the server's pause is kept");
}

#[test]
fn a_busy_server_is_given_up() {
    let (server, url) = Server::with([Reply::status(500)]);
    let place = Place::new();
    let said = place.refuses(&place.what(&url));
    assert!(said.contains("500"), "{said}");
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn redirects_are_followed_and_keep_the_range() {
    let content = content(1000);
    let honest = Reply::honest(&content);
    let (server, target) = Server::with([honest.clone().ending(Ending::Cut(600)), honest]);
    server.serve("/moved", [Reply::redirect(&target)]);
    let place = Place::new();
    place.fetches(&place.what(&server.url("/moved")), &content);
    assert_eq!(server.requests()[3].range.as_deref(), Some("bytes=600-"));
    assert_eq!(server.sent(), 1000);
}

#[test]
fn redirects_in_a_circle_are_refused() {
    let server = Server::start();
    server.serve("/circle", [Reply::redirect("/circle")]);
    let place = Place::new();
    let said = place.refuses(&place.what(&server.url("/circle")));
    assert!(said.contains("redirect"), "{said}");
    assert!(place.is_empty());
}

#[test]
fn addresses_that_are_none() {
    for url in [
        "",
        "nonsense",
        "ftp://localhost/file",
        "http://",
        "http://a b/",
        "/etc/passwd",
    ] {
        let place = Place::new();
        let start = Instant::now();
        let said = place.refuses(&place.what(url));
        assert!(said.contains("check the address"), "{url:?}: {said}");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{url:?}: it is not tried again"
        );
        assert!(place.is_empty());
    }
}

#[test]
fn no_server_at_all() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let place = Place::new();
    let said = place.refuses(&place.what(&format!("http://127.0.0.1:{port}/scan")));
    assert!(said.contains("check the network"), "{said}");
    assert!(place.is_empty());
}

#[test]
fn places_that_cannot_be_filled() {
    let (server, url) = Server::with([Reply::honest(b"scan")]);
    let place = Place::new();
    let file = place.folder.path().join("file");
    fs::write(&file, "").unwrap();
    for target in [file.join("scan"), PathBuf::from(".."), PathBuf::from("/")] {
        let what = Download {
            target: &target,
            ..place.what(&url)
        };
        download(&what, STALL, &mut |_, _| {}).unwrap_err();
    }
    fs::create_dir(place.sidecar()).unwrap();
    download(&place.what(&url), STALL, &mut |_, _| {}).unwrap_err();
    assert_eq!(server.requests().len(), 0, "nothing is fetched in vain");
}

#[test]
fn two_programs_do_not_fill_one_file() {
    let (_server, url) = Server::with([Reply::honest(b"scan")]);
    let place = Place::new();
    let other = fs::File::create(place.part()).unwrap();
    other.lock().unwrap();
    let said = download(&place.what(&url), STALL, &mut |_, _| {})
        .unwrap_err()
        .to_string();
    assert!(said.contains("another program") && said.contains("wait"), "{said}");
    drop(other);
    place.fetches(&place.what(&url), b"scan");
}

/// One entry of an archive, which may say about itself what is not so.
#[derive(Clone)]
struct Entry {
    name: String,
    data: Vec<u8>,
    deflated: bool,
    claimed_size: Option<u32>,
    crc: Option<u32>,
    flags: u16,
    mode: u32,
}

impl Entry {
    fn new(name: &str, data: &[u8]) -> Self {
        Entry {
            name: name.to_owned(),
            data: data.to_owned(),
            deflated: false,
            claimed_size: None,
            crc: None,
            // Names are UTF-8.
            flags: 0x800,
            mode: 0o100_644,
        }
    }

    fn deflated(name: &str, data: &[u8]) -> Self {
        Entry {
            deflated: true,
            ..Self::new(name, data)
        }
    }
}

/// An archive, byte by byte: what makes honest ones does not make these.
fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut body, mut table) = (Vec::new(), Vec::new());
    for entry in entries {
        let offset = body.len() as u32;
        let mut crc = Crc::new();
        crc.update(&entry.data);
        let packed = match entry.deflated {
            true => {
                let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&entry.data).unwrap();
                encoder.finish().unwrap()
            }
            false => entry.data.clone(),
        };
        // From the flags to the length of the extra field, the same in both places.
        let mut common = Vec::new();
        common.extend(entry.flags.to_le_bytes());
        common.extend(if entry.deflated { [8, 0] } else { [0, 0] });
        common.extend([0, 0, 0x21, 0x58]);
        common.extend(entry.crc.unwrap_or(crc.sum()).to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend(entry.claimed_size.unwrap_or(entry.data.len() as u32).to_le_bytes());
        common.extend((entry.name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        body.extend(b"PK\x03\x04\x14\x00");
        body.extend(&common);
        body.extend(entry.name.as_bytes());
        body.extend(packed);
        // Made by Unix, so that the mode counts.
        table.extend(b"PK\x01\x02\x14\x03\x14\x00");
        table.extend(&common);
        table.extend([0; 6]);
        table.extend((entry.mode << 16).to_le_bytes());
        table.extend(offset.to_le_bytes());
        table.extend(entry.name.as_bytes());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (length, offset) = (table.len() as u32, body.len() as u32);
    body.extend(table);
    body.extend(b"PK\x05\x06\0\0\0\0");
    body.extend(count);
    body.extend(count);
    body.extend(length.to_le_bytes());
    body.extend(offset.to_le_bytes());
    body.extend([0, 0]);
    body
}

/// A folder with an archive, and beside it the folder that it is unpacked into.
struct Shelf {
    folder: TempDir,
    archive: PathBuf,
    data: PathBuf,
}

impl Shelf {
    fn new(bytes: &[u8]) -> Self {
        let folder = TempDir::new().unwrap();
        let archive = folder.path().join("data.zip");
        let data = folder.path().join("data");
        fs::write(&archive, bytes).unwrap();
        Shelf { folder, archive, data }
    }

    fn unpack(&self) -> Result<Vec<PathBuf>, String> {
        let limits = Limits {
            files: 5,
            bytes: 1 << 20,
        };
        unpack(&self.archive, &self.data, limits, &mut |_, _| {}).map_err(|why| why.to_string())
    }

    /// Expects a refusal that leaves nothing behind, and returns what it said.
    fn refuses(&self) -> String {
        let before = names(self.folder.path());
        let said = self.unpack().unwrap_err();
        assert!(
            said.contains(self.archive.to_str().unwrap()),
            "the archive is named: {said}"
        );
        assert_eq!(names(self.folder.path()), before, "nothing is left behind");
        said
    }
}

#[test]
fn an_archive_is_unpacked() {
    let big = content(200_000);
    let shelf = Shelf::new(&zip(&[
        Entry::new("data/", b""),
        Entry::new("data/plain.txt", b"plain"),
        Entry::deflated("./data//deep/er/scan.nii.gz", &big),
        Entry::new("data/empty", b""),
        Entry::new("data/ünïcode..txt", b"name"),
    ]));
    fs::create_dir_all(shelf.data.join("data/deep")).unwrap();
    fs::write(shelf.data.join("data/plain.txt"), "an older file").unwrap();
    fs::write(shelf.data.join("data/other"), "stays").unwrap();
    let mut told = Vec::new();
    let limits = Limits {
        files: 4,
        bytes: 200_009,
    };
    let paths = unpack(&shelf.archive, &shelf.data, limits, &mut |done, all| {
        told.push((done, all));
    })
    .unwrap();
    let expected = [
        "data/plain.txt",
        "data/deep/er/scan.nii.gz",
        "data/empty",
        "data/ünïcode..txt",
    ];
    assert_eq!(paths, expected.map(PathBuf::from));
    assert_eq!(told, [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]);
    assert_eq!(fs::read(shelf.data.join("data/plain.txt")).unwrap(), b"plain");
    assert!(fs::read(shelf.data.join("data/deep/er/scan.nii.gz")).unwrap() == big);
    assert_eq!(fs::read(shelf.data.join("data/other")).unwrap(), b"stays");
    assert_eq!(
        names(&shelf.data.join("data")),
        ["deep", "empty", "other", "plain.txt", "ünïcode..txt"]
    );
    assert_eq!(
        names(shelf.folder.path()),
        ["data", "data.zip"],
        "nothing else is left behind"
    );
}

#[test]
fn names_that_lead_out_of_the_folder() {
    let hostile = [
        "../evil",
        "a/../../evil",
        "a/..",
        "..",
        "../evil/",
        "/evil",
        "//server/evil",
        "/",
        "..\\evil",
        "a\\..\\..\\evil",
        "\\\\server\\evil",
        "C:/evil",
        "C:evil",
        "a/c:/evil",
        "evil\0.txt",
        ".",
        "",
    ];
    for name in hostile {
        let shelf = Shelf::new(&zip(&[Entry::new("good", b"good"), Entry::new(name, b"evil")]));
        let said = shelf.refuses();
        assert!(
            said.contains("the entry") && said.contains("publisher"),
            "{name:?}: {said}"
        );
        assert!(!said.contains('\0'));
    }
}

#[test]
fn links_and_devices() {
    for mode in [0o120_777, 0o020_666, 0o010_644] {
        let link = Entry {
            mode,
            ..Entry::new("link", b"/etc/passwd")
        };
        let said = Shelf::new(&zip(&[link])).refuses();
        assert!(said.contains("\"link\" is a link or a device"), "{said}");
    }
}

#[test]
fn an_archive_that_unpacks_to_too_much() {
    let zeros = vec![0; 10 << 20];
    let honest = Entry::deflated("bomb", &zeros);
    let modest = Entry {
        claimed_size: Some(10),
        ..honest.clone()
    };
    let archive = zip(&[honest]);
    assert!(archive.len() < 100_000, "it is a bomb");
    let said = Shelf::new(&archive).refuses();
    assert!(said.contains("more than 1048576 bytes"), "{said}");
    Shelf::new(&zip(&[modest])).refuses();
    // Each is small enough, and all together are not.
    let each = Entry::deflated("", &zeros[..300_000]);
    let all = ["a", "b", "c", "d"].map(|name| Entry {
        name: name.to_owned(),
        ..each.clone()
    });
    Shelf::new(&zip(&all[..3])).unpack().unwrap();
    let said = Shelf::new(&zip(&all)).refuses();
    assert!(said.contains("more than 1048576 bytes"), "{said}");
}

#[test]
fn an_entry_that_is_shorter_than_it_says() {
    let short = Entry {
        claimed_size: Some(2000),
        ..Entry::deflated("short", &content(1000))
    };
    let said = Shelf::new(&zip(&[short])).refuses();
    assert!(said.contains("\"short\" is damaged"), "{said}");
}

#[test]
fn too_many_files() {
    let entries: Vec<Entry> = (0..6).map(|i| Entry::new(&format!("file-{i}"), b"")).collect();
    assert_eq!(Shelf::new(&zip(&entries[..5])).unpack().unwrap().len(), 5);
    let said = Shelf::new(&zip(&entries)).refuses();
    assert!(said.contains("more than 5 files"), "{said}");
}

#[test]
fn a_truncated_archive() {
    let whole = zip(&[Entry::new("a", &content(100)), Entry::deflated("b", &content(500))]);
    for length in (0..whole.len()).step_by(23) {
        let said = Shelf::new(&whole[..length]).refuses();
        assert!(
            said.contains("not a whole ZIP archive") && said.contains("fetch it again"),
            "{said}"
        );
    }
}

#[test]
fn a_wrong_checksum_leaves_older_files_alone() {
    let bad = Entry {
        crc: Some(1),
        ..Entry::deflated("bad", &content(500))
    };
    let shelf = Shelf::new(&zip(&[Entry::new("good", b"new"), bad]));
    fs::create_dir(&shelf.data).unwrap();
    fs::write(shelf.data.join("good"), "old").unwrap();
    let said = shelf.refuses();
    assert!(
        said.contains("\"bad\" is damaged") && said.contains("hecksum"),
        "{said}"
    );
    assert_eq!(names(&shelf.data), ["good"]);
    assert_eq!(fs::read(shelf.data.join("good")).unwrap(), b"old");
}

#[test]
fn any_damaged_byte_is_survived() {
    let whole = zip(&[
        Entry::new("a", b"first"),
        Entry::deflated("b/c", b"second second second"),
    ]);
    let mut refused = 0;
    for place in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        let shelf = Shelf::new(&bytes);
        match shelf.unpack() {
            Ok(_) => assert!(shelf.data.is_dir()),
            Err(_) => {
                refused += 1;
                assert!(!shelf.data.exists());
            }
        }
        assert!(names(shelf.folder.path()).iter().all(|name| name.starts_with("data")));
    }
    assert!(refused > whole.len() / 3, "{refused} of {} were refused", whole.len());
}

#[test]
fn an_encrypted_entry() {
    let secret = Entry {
        flags: 0x801,
        ..Entry::new("secret", b"0123456789abcdef")
    };
    let said = Shelf::new(&zip(&[secret])).refuses();
    assert!(
        said.contains("\"secret\" is encrypted") && said.contains("password"),
        "{said}"
    );
}

#[test]
fn names_that_collide() {
    let twice = |first: &str, second: &str| Shelf::new(&zip(&[Entry::new(first, b"1"), Entry::new(second, b"2")]));
    for (first, second) in [("a", "a"), ("a/b", "a/./b"), ("a", "./a"), ("a", "a/b"), ("a/b/c", "a")] {
        let said = twice(first, second).refuses();
        let why = ["twice", "same name", "within another"];
        assert!(why.iter().any(|why| said.contains(why)), "{first} and {second}: {said}");
    }
}

#[test]
fn what_is_in_the_folder_already_is_not_walked_through() {
    let shelf = Shelf::new(&zip(&[Entry::new("first", b"1"), Entry::new("a/b/c", b"new")]));
    let outside = shelf.folder.path().join("outside");
    fs::create_dir_all(outside.join("b")).unwrap();
    fs::write(outside.join("c"), "old").unwrap();
    let refuses = |what: &str| {
        let said = shelf.refuses();
        assert!(said.contains(what) && said.contains("in the way"), "{said}");
        assert!(!shelf.data.join("first").exists(), "nothing is unpacked");
        assert_eq!(fs::read(outside.join("c")).unwrap(), b"old");
        assert!(!outside.join("b/c").exists());
        fs::remove_dir_all(&shelf.data).unwrap();
    };
    fs::create_dir_all(&shelf.data).unwrap();
    fs::write(shelf.data.join("a"), "").unwrap();
    refuses("a file");
    fs::create_dir_all(shelf.data.join("a/b/c")).unwrap();
    refuses("a folder");
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        fs::create_dir_all(&shelf.data).unwrap();
        symlink(&outside, shelf.data.join("a")).unwrap();
        refuses("a link");
        fs::create_dir_all(shelf.data.join("a")).unwrap();
        symlink(&outside, shelf.data.join("a/b")).unwrap();
        refuses("a link");
        fs::create_dir_all(shelf.data.join("a/b")).unwrap();
        symlink(outside.join("c"), shelf.data.join("a/b/c")).unwrap();
        refuses("a link");
        fs::create_dir_all(&shelf.data).unwrap();
        symlink(shelf.data.join("nowhere"), shelf.data.join("a")).unwrap();
        refuses("a link");
    }
}

#[test]
fn what_is_no_archive() {
    let shelf = Shelf::new(b"<html>Please log in</html>");
    assert!(shelf.refuses().contains("not a whole ZIP archive"));
    fs::remove_file(&shelf.archive).unwrap();
    assert!(shelf.refuses().contains("check the path"));
}
