//! `flapsam view`: what it shows of a run, and when it refuses. The page itself is tested in tests/browser.

mod common;
mod micro;

use std::fs;
use std::path::{Path, PathBuf};

use common::{flapsam, root};
use flapsam_model::checkpoint::sha256;
use serde_json::Value;
use tempfile::TempDir;

/// A micro run, and a page that is not the real one.
struct Show {
    folder: TempDir,
    run: PathBuf,
    page: PathBuf,
}

impl Show {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let config = micro::experiment(folder.path(), |text| text.replace("rounds = 2", "rounds = 1"));
        let run = micro::run(&config, &folder.path().join("runs"), "2");
        let page = folder.path().join("page");
        fs::create_dir_all(page.join("assets")).unwrap();
        fs::write(page.join("index.html"), "<p>page</p>").unwrap();
        fs::write(page.join("assets/script.js"), "1").unwrap();
        Self { folder, run, page }
    }

    fn command(&self, run: &Path, data: &Path) -> assert_cmd::Command {
        Self::command_with(&self.page, run, data)
    }

    fn command_with(page: &Path, run: &Path, data: &Path) -> assert_cmd::Command {
        let mut command = flapsam();
        command.current_dir(root()).arg("view").arg(run);
        command.arg("--data").arg(data).arg("--page").arg(page);
        command
    }

    fn refusal(&self, command: &mut assert_cmd::Command) -> String {
        let out = self.folder.path().join("refused");
        let assert = command.arg("--export").arg(&out).assert().code(2);
        assert!(!out.exists(), "nothing is left behind");
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    }
}

#[test]
fn an_exported_folder_holds_the_page_and_the_runs_files_with_their_checksums() {
    let show = Show::new();
    let out = show.folder.path().join("out");
    let mut command = show.command(&show.run, micro::data());
    command.arg("--export").arg(&out).assert().success();
    assert_eq!(fs::read_to_string(out.join("index.html")).unwrap(), "<p>page</p>");
    assert_eq!(fs::read_to_string(out.join("assets/script.js")).unwrap(), "1");

    let said: Value = serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap();
    let metrics: Value = serde_json::from_slice(&fs::read(show.run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(said["classes"], metrics["classes"]);
    assert_eq!(said["clip"], serde_json::json!([-100.0, 300.0]));
    let cases = said["cases"].as_array().unwrap();
    assert_eq!(cases.len(), metrics["cases"].as_array().unwrap().len());
    let mut files = vec![&said["base"], &said["adapters"][0]];
    for (case, scores) in cases.iter().zip(metrics["cases"].as_array().unwrap()) {
        assert_eq!((&case["site"], &case["id"]), (&scores["site"], &scores["case"]));
        assert_eq!(case["dice"], scores["dice"]);
        files.extend([&case["image"], &case["truth"], &case["prediction"]]);
    }
    for file in files {
        let bytes = fs::read(out.join(file["path"].as_str().unwrap())).unwrap();
        assert_eq!(file["sha256"], sha256(&bytes), "{file}");
        assert_eq!(file["bytes"], bytes.len());
    }
}

#[test]
fn the_base_may_be_in_half_precision() {
    let show = Show::new();
    let half = show.folder.path().join("half.safetensors");
    let mut export = flapsam();
    export
        .current_dir(root())
        .args(["export", "--format", "base-f16", "-o"]);
    export.arg(&half).assert().success();
    let out = show.folder.path().join("out");
    let mut command = show.command(&show.run, micro::data());
    command
        .arg("--base")
        .arg(&half)
        .arg("--export")
        .arg(&out)
        .assert()
        .success();
    assert_eq!(
        fs::read(out.join("files/base.safetensors")).unwrap(),
        fs::read(&half).unwrap()
    );
}

#[test]
fn what_cannot_be_shown_is_refused_with_a_remedy() {
    let show = Show::new();
    let data = micro::data();
    let run = || show.command(&show.run, data);
    let said = show.refusal(run().args(["--base", "README.md"]));
    assert!(said.contains("safetensors file cannot be read"), "{said}");
    let said = show.refusal(run().arg("--base").arg(show.run.join("adapter.safetensors")));
    assert!(said.contains("not the base checkpoint of the run"), "{said}");
    let said = show.refusal(&mut Show::command_with(show.folder.path(), &show.run, data));
    assert!(said.contains("viewer/build.sh"), "{said}");
    let empty = show.folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let said = show.refusal(&mut show.command(&show.run, &empty));
    assert!(said.contains("check the path"), "{said}");

    let runs = show.run.parent().unwrap();
    let twin = runs.join("twin-1");
    fs::create_dir(&twin).unwrap();
    for name in ["metrics.json", "provenance.json", "config.toml"] {
        fs::copy(show.run.join(name), twin.join(name)).unwrap();
    }
    let said = show.refusal(&mut show.command(runs, data));
    assert!(said.contains("holds 2 runs; pass one of them"), "{said}");
    let said = show.refusal(&mut show.command(&twin, data));
    assert!(said.contains("holds no adapter"), "{said}");
}

/// Where clients differ, each site's own adapter is there; masks only of the models that the run kept masks of.
#[test]
fn each_case_has_its_sites_own_adapter() {
    let show = Show::new();
    for (way, keeps_masks) in [("setting = \"alone\"", false), ("num_lora = 2", true)] {
        let folder = show.folder.path().join(way.replace(['"', ' ', '='], ""));
        fs::create_dir(&folder).unwrap();
        let config = micro::experiment(&folder, |text| text.replace("rank = 4", &format!("rank = 4\n{way}")));
        let run = micro::run(&config, &folder, "2");
        let out = folder.join("out");
        let mut command = show.command(&run, micro::data());
        command.arg("--export").arg(&out).assert().success();
        let said: Value = serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap();
        let adapters = said["adapters"].as_array().unwrap();
        let sites: Vec<&str> = adapters.iter().map(|one| one["site"].as_str().unwrap()).collect();
        assert_eq!(sites, ["A", "B", "C", "D", "E", "F"]);
        assert_eq!(said["sites"], serde_json::json!(sites), "a new scan is of one of them");
        for adapter in adapters {
            let own = run.join(format!("adapter-{}.safetensors", adapter["site"].as_str().unwrap()));
            assert_eq!(adapter["sha256"], sha256(&fs::read(own).unwrap()));
        }
        for case in said["cases"].as_array().unwrap() {
            assert_eq!(!case["prediction"].is_null(), keeps_masks, "{way}");
        }
        // An export may take an earlier one's place, and no other folder's.
        command.assert().success();
        let own = folder.join("own");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("index.html"), "mine").unwrap();
        let mut command = show.command(&run, micro::data());
        command.arg("--export").arg(&own).assert().code(2);
        assert_eq!(fs::read_to_string(own.join("index.html")).unwrap(), "mine");
    }
}

/// Of runs beside it the page has each case's mask and Dice; runs on other data, or of other classes, are refused.
#[test]
fn runs_may_be_shown_beside_another() {
    let show = Show::new();
    let folder = show.folder.path().join("other");
    fs::create_dir(&folder).unwrap();
    let config = micro::experiment(&folder, |text| {
        text.replace("rounds = 2", "rounds = 1").replace("rank = 4", "rank = 2")
    });
    let other = micro::run(&config, &folder, "2");
    let out = show.folder.path().join("out");
    let export = |beside: &Path| {
        let mut command = show.command(&show.run, micro::data());
        command.arg("--beside").arg(beside);
        command
    };
    export(&other).arg("--export").arg(&out).assert().success();
    let said: Value = serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap();
    assert_eq!(
        said["beside"],
        serde_json::json!([{ "name": "micro-1", "title": "micro" }])
    );
    let metrics: Value = serde_json::from_slice(&fs::read(other.join("metrics.json")).unwrap()).unwrap();
    for (case, scores) in said["cases"]
        .as_array()
        .unwrap()
        .iter()
        .zip(metrics["cases"].as_array().unwrap())
    {
        let beside = &case["beside"][0];
        assert_eq!(beside["dice"], scores["dice"]);
        let mask = fs::read(out.join(beside["prediction"]["path"].as_str().unwrap())).unwrap();
        let [site, id] = ["site", "case"].map(|key| scores[key].as_str().unwrap());
        let own = other.join("predictions").join(site).join(format!("{id}.nii.gz"));
        assert!(mask == fs::read(own).unwrap() && beside["prediction"]["sha256"] == sha256(&mask));
    }

    for (file, from, to) in [
        ("provenance.json", "\"data_sha256\": \"", "\"data_sha256\": \"0"),
        ("metrics.json", "\"tumour\"", "\"tumor\""),
    ] {
        let path = other.join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(from, to)).unwrap();
        let said = show.refusal(&mut export(&other));
        assert!(said.contains("are not those of") && said.contains("micro-1"), "{said}");
        fs::write(&path, text).unwrap();
    }
}

/// A server, and its process, which ends with this.
struct Served(std::process::Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Connections that say half a request, that take nothing of a long answer, or that never end their headers: others are
/// answered all the same, and no request takes memory without end.
#[test]
fn stalled_connections_do_not_stop_the_page() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::time::{Duration, Instant};

    let show = Show::new();
    let command = show.command(&show.run, micro::data());
    let mut started = std::process::Command::new(command.get_program());
    started
        .args(command.get_args())
        .args(["--port", "0", "--no-open", "--json"]);
    if let Some(folder) = command.get_current_dir() {
        started.current_dir(folder);
    }
    let mut process = started.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        said += &line.unwrap();
        if said.contains('}') {
            break;
        }
    }
    let said: Value = serde_json::from_str(&said).unwrap();
    let address = said["url"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .trim_end_matches('/');
    let _served = Served(process);
    let connect = |text: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(text.replace("HOST", address).as_bytes());
        stream
    };
    let status = |mut stream: TcpStream| {
        let mut line = [0; 12];
        stream
            .read_exact(&mut line)
            .map(|()| String::from_utf8_lossy(&line[9..]).into_owned())
    };
    const WHOLE: &str = "GET /run.json HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n";
    assert_eq!(status(connect(WHOLE)).unwrap(), "200");
    // Takes nothing of several megabytes: more of these than threads that answer.
    let long = "GET /files/base.safetensors HTTP/1.1\r\nHost: HOST\r\n\r\n".repeat(8);
    let mut stalled: Vec<TcpStream> = (0..20).map(|_| connect(&long)).collect();
    stalled.extend((0..700).map(|_| connect("GET / HTTP/1.1\r\nHo")));
    let asked = Instant::now();
    assert_eq!(status(connect(WHOLE)).unwrap(), "200");
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    // Longer than any headers are.
    let huge = format!("GET / HTTP/1.1\r\nHost: HOST\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let refused = status(connect(&huge));
    assert!(refused.as_ref().map_or(true, |status| status == "431"), "{refused:?}");
    assert_eq!(status(connect(WHOLE)).unwrap(), "200");
}
