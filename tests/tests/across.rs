//! One federation over many machines: clients and a server as processes of their own end in the bytes of a run in one.

mod common;
mod micro;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::flapsam;
use micro::{data, experiment, run};
use serde_json::Value;
use tempfile::TempDir;

const SITES: [&str; 6] = ["A", "B", "C", "D", "E", "F"];

/// A federation in a folder: the server's state, each site's, and the files that travel.
struct Across {
    folder: PathBuf,
    config: PathBuf,
}

impl Across {
    fn new(folder: &Path, config: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            config: config.to_owned(),
        }
    }

    fn client(&self, what: &str, site: &str) -> Command {
        let mut command = flapsam();
        command.args(["client", what]).arg(&self.config).args(["--site", site]);
        command.arg("--state").arg(self.folder.join(site));
        command.arg("--data").arg(data());
        command
    }

    fn server(&self, what: &str) -> Command {
        let mut command = flapsam();
        command.args(["server", what, "--json"]).arg(&self.config);
        command.arg("--state").arg(self.folder.join("server"));
        command.arg("--data").arg(data());
        command
    }

    fn enrol(&self, site: &str) -> PathBuf {
        let file = self.folder.join(format!("{site}.enrolment"));
        self.client("enrol", site).arg("--out").arg(&file).assert().success();
        file
    }

    fn begin(&self) -> Value {
        let enrolments = SITES.map(|site| self.enrol(site));
        said(self.server("begin").args(enrolments))
    }

    /// A site's update for an order.
    fn train(&self, site: &str, order: &str, round: u64) -> PathBuf {
        let file = self.folder.join(format!("{site}-{round}.update"));
        let mut command = self.client("round", site);
        command
            .arg("--order")
            .arg(order)
            .arg("--out")
            .arg(&file)
            .assert()
            .success();
        file
    }

    /// All updates of the round that the server asks for.
    fn updates(&self, standing: &Value) -> Vec<PathBuf> {
        let round = standing["round"].as_u64().unwrap();
        let orders = standing["orders"].as_object().unwrap();
        orders
            .iter()
            .map(|(site, order)| self.train(site, order.as_str().unwrap(), round))
            .collect()
    }

    /// All rounds from here on.
    fn go_on(&self, mut standing: Value) -> Value {
        while standing["finished"] != true {
            let mut updates = self.updates(&standing);
            // In whatever order they arrive.
            updates.reverse();
            standing = said(self.server("aggregate").args(updates));
        }
        standing
    }
}

/// What a command says as JSON.
fn said(command: &mut Command) -> Value {
    let output = command.assert().success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

/// What a command refuses to do.
fn refused(command: &mut Command) -> String {
    let output = command.assert().code(2);
    String::from_utf8_lossy(&output.get_output().stderr).into_owned()
}

/// What a federation must end in.
fn results(folder: &Path) -> BTreeMap<&'static str, Vec<u8>> {
    let names = ["adapter.safetensors", "ledger.csv", "trace.txt"];
    names
        .into_iter()
        .filter_map(|name| Some((name, fs::read(folder.join(name)).ok()?)))
        .collect()
}

fn three_rounds(folder: &Path, lines: &str) -> PathBuf {
    experiment(folder, |text| {
        let text = text
            .replace("rounds = 2", "rounds = 3")
            .replace("save_predictions = true", "");
        text.replace("rank = 4", &format!("rank = 4\n{lines}"))
    })
}

#[test]
fn sites_of_their_own_end_in_the_same_bytes_as_one_process() {
    for (way, lines) in [
        ("plain", ""),
        ("int8", "precision = \"int8\""),
        ("stacked", "aggregation = \"stacked\""),
        ("fedex", "aggregation = \"fedex_lora\""),
        (
            "rolora, not all in every round",
            "aggregation = \"rolora\"\nparticipation = 0.5",
        ),
        (
            "adam",
            "aggregation = \"mean_of_factors\"\nserver_adam = { rate = 0.01 }",
        ),
        ("ranks", "ranks = { B = 2, E = 1 }"),
        ("full", "participation = 0.5"),
    ] {
        let folder = TempDir::new().unwrap();
        let config = three_rounds(folder.path(), lines);
        if way == "full" {
            let text = fs::read_to_string(&config).unwrap();
            fs::write(&config, text.replace("\"flap_sam\"", "\"full_ft\"")).unwrap();
        }
        let whole = run(&config, &folder.path().join("whole"), "2");
        let across = Across::new(folder.path(), &config);
        let last = across.go_on(across.begin());
        let (one, many) = (results(&whole), results(&folder.path().join("server")));
        assert_eq!(one.keys().collect::<Vec<_>>(), many.keys().collect::<Vec<_>>(), "{way}");
        for (name, bytes) in &one {
            assert!(many[name] == *bytes, "{way}: another {name}");
        }
        // Each site has the model in the end, judges it on its own cases, and comes to the scores of the run.
        let record: Value = serde_json::from_slice(&fs::read(whole.join("metrics.json")).unwrap()).unwrap();
        let (site, order) = last["orders"].as_object().unwrap().iter().next_back().unwrap();
        let report = said(
            across
                .client("finish", site)
                .arg("--json")
                .arg("--order")
                .arg(order.as_str().unwrap()),
        );
        assert_eq!(record["dice_by_site"][site], report["dice"], "{way}");
        let adapter = fs::read(folder.path().join(site).join("adapter.safetensors")).unwrap();
        assert!(
            adapter == one["adapter.safetensors"],
            "{way}: another adapter at the site"
        );
    }
}

/// Whoever is asked again gives the same answer, and a server that starts again goes on where it was.
#[test]
fn nothing_is_lost_when_an_end_starts_again() {
    let folder = TempDir::new().unwrap();
    let config = three_rounds(folder.path(), "precision = \"int8\"");
    let whole = run(&config, &folder.path().join("whole"), "2");
    let across = Across::new(folder.path(), &config);
    let first = across.begin();
    let again = said(across.server("begin").args(SITES.map(|site| across.enrol(site))));
    assert_eq!(first, again);
    let updates = across.updates(&first);
    let order = first["orders"]["C"].as_str().unwrap();
    let update = fs::read(&updates[2]).unwrap();
    across.train("C", order, 1);
    assert!(
        fs::read(&updates[2]).unwrap() == update,
        "the same order, the same update"
    );
    // As if the update had been lost before the checkpoint was written, or the checkpoint after it.
    fs::remove_file(folder.path().join("C/update.safetensors")).unwrap();
    across.train("C", order, 1);

    let second = said(across.server("aggregate").args(&updates));
    assert_eq!(said(&mut across.server("status")), second);
    let refusal = refused(across.server("aggregate").args(&updates));
    assert!(refusal.contains("it is of round 1, and this is round 2"), "{refusal}");
    across.go_on(second);
    assert!(results(&whole) == results(&folder.path().join("server")));
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let config = three_rounds(folder.path(), "");
    let across = Across::new(folder.path(), &config);
    let enrolments = SITES.map(|site| across.enrol(site));
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let other = Across::new(&other, &three_rounds(&other, "num_lora = 2"));
    let refusal = refused(across.server("begin").args(&enrolments[..5]).arg(other.enrol("F")));
    assert!(
        refusal.contains("site 'F'")
            && refusal.contains("another experiment")
            && refusal.contains("differ in num_lora"),
        "{refusal}"
    );
    let refusal = refused(across.server("begin").args(&enrolments).arg(&enrolments[0]));
    assert!(refusal.contains("two sites enrol as 'A'"), "{refusal}");
    let refusal = refused(&mut across.server("status"));
    assert!(refusal.contains("no federation has begun"), "{refusal}");

    let standing = said(across.server("begin").args(&enrolments));
    let refusal = refused(across.server("begin").args(&enrolments[1..]));
    assert!(refusal.contains("it has begun with other sites"), "{refusal}");
    let order = standing["orders"]["A"].as_str().unwrap();
    let mut strange = other.client("round", "A");
    let refusal = refused(strange.args(["--out", "/dev/null", "--order", order]));
    assert!(refusal.contains("another experiment"), "{refusal}");
    let mut strange = across.client("round", "A");
    let refusal = refused(strange.args(["--out", "/dev/null", "--order"]).arg(&enrolments[0]));
    assert!(refusal.contains("it is the enrolment of a federation"), "{refusal}");
    let refusal = refused(across.client("finish", "A").args(["--order", order]));
    assert!(refusal.contains("it asks for round 1 of 3"), "{refusal}");
    let mut nobody = across.client("enrol", "G");
    let refusal = refused(nobody.args(["--out", "/dev/null"]));
    assert!(refusal.contains("no training cases of site 'G'"), "{refusal}");

    let updates = across.updates(&standing);
    let refusal = refused(across.server("aggregate").args(&updates[1..]));
    assert!(refusal.contains("round 1 lacks the updates of A"), "{refusal}");
    let refusal = refused(across.server("aggregate").args(&updates).arg(&updates[3]));
    assert!(refusal.contains("there are two updates of 'D'"), "{refusal}");
}
