//! One federation over many machines: clients and a server as processes of their own end in the bytes of a run in one.

mod common;
mod micro;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use common::flapsam;
use flapsam::experiment::across::{Brings, HandedIn, Order};
use flapsam::federation::FaultKind;
use flapsam::federation::envelope::{open, seal};
use flapsam::federation::privacy::epsilon;
use flapsam::federation::wire::{Precision, decode, encode};
use flapsam_model::checkpoint::sha256;
use flapsam_model::config::{AdapterConfig, SamConfig};
use flapsam_model::sam::Sam;
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

    /// The updates of the round that the server asks for, without their parameters, and the sum of what the sites add.
    fn updates_and_sum(&self, standing: &Value) -> (Vec<PathBuf>, PathBuf) {
        let mut sum: Vec<i32> = Vec::new();
        let mut add = |(site, order): (&String, &Value)| {
            let [update, addend] = ["update", "addend"].map(|what| self.folder.join(format!("{site}.{what}")));
            let mut command = self.client("round", site);
            command.arg("--order").arg(order.as_str().unwrap());
            command.arg("--out").arg(&update).arg("--addend").arg(&addend);
            command.assert().success();
            let bytes = fs::read(&addend).unwrap();
            let integers = bytes.chunks(4).map(|four| i32::from_le_bytes(four.try_into().unwrap()));
            sum.resize(bytes.len() / 4, 0);
            sum.iter_mut().zip(integers).for_each(|(sum, integer)| *sum += integer);
            update
        };
        let updates = standing["orders"].as_object().unwrap().iter().map(&mut add).collect();
        let file = self.folder.join("sum");
        let bytes: Vec<u8> = sum.iter().flat_map(|integer| integer.to_le_bytes()).collect();
        fs::write(&file, bytes).unwrap();
        (updates, file)
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

/// Where the server learns sums alone, whoever it is that adds up: under every rule that needs no more.
#[test]
fn sums_alone_end_in_the_same_bytes_as_one_process() {
    for (way, method, lines) in [
        ("ffa", "flap_sam", "aggregation = \"ffa_lora\""),
        ("fedsa", "flap_sam", "aggregation = \"fedsa_lora\""),
        (
            "rolora, not all in every round",
            "flap_sam",
            "aggregation = \"rolora\"\nparticipation = 0.5",
        ),
        (
            "adam",
            "flap_sam",
            "aggregation = \"mean_of_factors\"\nserver_adam = { rate = 0.01 }",
        ),
        ("no pairs", "partial_decoder_ft", ""),
    ] {
        let folder = TempDir::new().unwrap();
        let config = three_rounds(folder.path(), &format!("{lines}\nsecure_aggregation = true"));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("\"flap_sam\"", &format!("\"{method}\""))).unwrap();
        let whole = run(&config, &folder.path().join("whole"), "2");
        let across = Across::new(folder.path(), &config);
        let mut standing = across.begin();
        while standing["finished"] != true {
            let (updates, sum) = across.updates_and_sum(&standing);
            standing = said(across.server("aggregate").args(updates).arg("--sum").arg(sum));
        }
        let (one, many) = (results(&whole), results(&folder.path().join("server")));
        assert_eq!(one.keys().collect::<Vec<_>>(), many.keys().collect::<Vec<_>>(), "{way}");
        // Adapters of a site's own stay there.
        let common = |bytes: &[u8]| -> Vec<u8> {
            let lines = bytes.split(|&byte| byte == b'\n');
            lines
                .filter(|line| !line.starts_with(b"adapter-"))
                .collect::<Vec<_>>()
                .join(&b'\n')
        };
        for (name, bytes) in &one {
            assert!(common(&many[name]) == common(bytes), "{way}: another {name}");
        }
    }
}

/// Steps of a millionth do not show in what is trained; and what does not go together is refused.
#[test]
fn a_sum_is_the_mean_and_nothing_else_goes_with_it() {
    let folder = TempDir::new().unwrap();
    let mean = "aggregation = \"mean_of_factors\"";
    let norms = ["", "secure_aggregation = true"].map(|secure| {
        let own = folder.path().join(format!("norms{}", secure.len()));
        fs::create_dir(&own).unwrap();
        let run = run(&three_rounds(&own, &format!("{mean}\n{secure}")), &own, "2");
        let record: Value = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
        assert_eq!(record["rounds"][2]["lora_error"].is_null(), !secure.is_empty());
        record["rounds"][2]["global_norm"].as_f64().unwrap()
    });
    assert!(
        norms[0] != norms[1] && (norms[0] - norms[1]).abs() < 1e-4 * norms[0],
        "{norms:?}"
    );

    let refusal = |lines: &str| {
        let config = three_rounds(folder.path(), &format!("{lines}\nsecure_aggregation = true"));
        refused(
            flapsam()
                .arg("run")
                .arg(config)
                .arg("--data")
                .arg(data())
                .arg("--out")
                .arg(folder.path().join("no")),
        )
    };
    for (lines, named) in [
        ("", "aggregation = \"product_svd\""),
        ("aggregation = \"stacked\"", "aggregation = \"stacked\""),
        (&format!("{mean}\nlargest_change = 10.0"), "'largest_change'"),
        (&format!("{mean}\nquorum = 2"), "'quorum'"),
        (&format!("{mean}\nprecision = \"int8\""), "'precision'"),
    ] {
        let said = refusal(lines);
        assert!(
            said.contains(&format!("which {named} needs")) && said.contains("mean_of_factors"),
            "{said}"
        );
    }

    let config = three_rounds(folder.path(), &format!("{mean}\nsecure_aggregation = true"));
    let across = Across::new(folder.path(), &config);
    let first = across.begin();
    let order = first["orders"]["A"].as_str().unwrap();
    let said = refused(
        across
            .client("round", "A")
            .args(["--order", order, "--out"])
            .arg(folder.path().join("x")),
    );
    assert!(said.contains("--addend"), "{said}");
    let (updates, sum) = across.updates_and_sum(&first);
    let said = refused(across.server("aggregate").args(&updates));
    assert!(said.contains("--sum"), "{said}");
    let bytes = fs::read(&sum).unwrap();
    fs::write(&sum, &bytes[4..]).unwrap();
    let said = refused(across.server("aggregate").args(&updates).arg("--sum").arg(&sum));
    assert!(said.contains("integers take"), "{said}");
    fs::write(&sum, bytes).unwrap();
    let said = refused(across.server("aggregate").args(&updates[1..]).arg("--sum").arg(&sum));
    assert!(said.contains("A: it handed in nothing"), "{said}");
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
    assert!(refusal.contains("C: its update is of round 1"), "{refusal}");
    across.go_on(second);
    assert!(results(&whole) == results(&folder.path().join("server")));
}

const PRIVACY: &str = "privacy = { clip = 0.2, noise_multiplier = 0.01, delta = 1e-5 }";

/// Noise included, where a site's secret is the simulated one.
#[test]
fn noise_at_the_sites_is_the_simulations() {
    let folder = TempDir::new().unwrap();
    let config = three_rounds(folder.path(), &format!("participation = 0.5\n{PRIVACY}"));
    let whole = run(&config, &folder.path().join("whole"), "2");
    for site in SITES {
        fs::create_dir(folder.path().join(site)).unwrap();
        let secret = sha256(format!("simulated/1/{site}").as_bytes());
        fs::write(folder.path().join(site).join("noise.secret"), secret).unwrap();
    }
    let across = Across::new(folder.path(), &config);
    across.go_on(across.begin());
    assert!(results(&whole) == results(&folder.path().join("server")));
    // Epsilon is of the client that was drawn most often, and of no round that did not ask for it.
    let record: Value = serde_json::from_slice(&fs::read(whole.join("metrics.json")).unwrap()).unwrap();
    let mut drawn: BTreeMap<&String, usize> = BTreeMap::new();
    for round in record["rounds"].as_array().unwrap() {
        for site in round["loss"].as_object().unwrap().keys() {
            *drawn.entry(site).or_default() += 1;
        }
        let most = *drawn.values().max().unwrap();
        assert_eq!(round["epsilon"].as_f64().unwrap(), epsilon(0.01, most, 1e-5));
    }
    assert_eq!(drawn.values().sum::<usize>(), 9, "half of six clients, three times");
}

/// A site's own secret is the system's, nobody else can read it, it stays the site's, and an order that would tell more is
/// refused.
#[test]
fn a_site_adds_noise_of_its_own() {
    let folder = TempDir::new().unwrap();
    let config = three_rounds(folder.path(), PRIVACY);
    let across = Across::new(folder.path(), &config);
    let first = across.begin();
    let secrets = SITES.map(|site| fs::read(folder.path().join(site).join("noise.secret")).unwrap());
    assert!(secrets.iter().collect::<BTreeSet<_>>().len() == 6 && secrets.iter().all(|secret| secret.len() == 32));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let facts = fs::metadata(folder.path().join("A/noise.secret")).unwrap();
        assert_eq!(facts.permissions().mode() & 0o077, 0, "only its owner reads it");
    }
    let order = first["orders"]["A"].as_str().unwrap();
    let update = fs::read(across.train("A", order, 1)).unwrap();
    assert!(
        fs::read(across.train("A", order, 1)).unwrap() == update,
        "the same answer"
    );
    for secret in &secrets {
        assert!(!update.windows(secret.len()).any(|bytes| bytes == secret));
    }
    // The same round once more, from another state.
    let other = folder.path().join("other.order");
    let (mut asked, state) = open::<Order>(&fs::read(order).unwrap()).unwrap();
    asked.brings = Brings::Whole;
    let whole = decode(&open::<HandedIn>(&update).unwrap().1).unwrap();
    assert!(state.is_empty() || decode(&state).unwrap().is_empty());
    fs::write(&other, seal(&asked, &encode(&whole, Precision::F32))).unwrap();
    let mut again = across.client("round", "A");
    let refusal = refused(
        again
            .arg("--out")
            .arg(folder.path().join("more"))
            .arg("--order")
            .arg(&other),
    );
    assert!(refusal.contains("a round is answered once"), "{refusal}");
}

#[test]
fn noise_and_epsilon_are_calculated() {
    let of = |what: [&str; 2]| said(flapsam().args(["privacy", "--rounds", "6", "--json"]).args(what));
    let wanted = of(["--epsilon", "8"]);
    let noise = wanted["noise_multiplier"].to_string();
    // A number may lose its last digit on its way through text.
    for found in [&wanted, &of(["--noise-multiplier", &noise])] {
        assert!((found["epsilon"].as_f64().unwrap() - 8.0).abs() < 1e-6, "{found}");
    }
    for (what, why) in [
        (["--epsilon", "0"], "--epsilon must be above 0"),
        (["--noise-multiplier", "0"], "noise_multiplier' is 0"),
        (["--noise-multiplier", "nan"], "noise_multiplier' is NaN"),
    ] {
        let refusal = refused(flapsam().args(["privacy", "--rounds", "6"]).args(what));
        assert!(refusal.contains(why), "{refusal}");
    }
    let refusal = refused(flapsam().args(["privacy", "--rounds", "0", "--epsilon", "1"]));
    assert!(refusal.contains("--rounds must be above 0"), "{refusal}");
    let refusal = refused(flapsam().args(["privacy", "--rounds", "1", "--delta", "1", "--epsilon", "1"]));
    assert!(refusal.contains("delta' is 1"), "{refusal}");
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
    assert!(refusal.contains("not used are A: it handed in nothing"), "{refusal}");
    let refusal = refused(across.server("aggregate").args(&updates).arg(&updates[3]));
    assert!(
        refusal.contains("client D, round 1: there are two updates of it"),
        "{refusal}"
    );
}

/// What goes wrong at single sites is left out, and the others go on, as in one process with the same faults.
#[test]
fn faults_end_in_the_same_bytes_as_in_one_process() {
    let folder = TempDir::new().unwrap();
    let lines = "quorum = 2\nlargest_change = 50.0";
    let config = three_rounds(folder.path(), lines);
    let across = Across::new(folder.path(), &config);
    // In the third round those of the second are back, with the whole state.
    let faults = [
        (
            "A",
            2,
            FaultKind::Scaled { times: 1000.0 },
            "{ scaled = { times = 1000.0 } }",
        ),
        ("B", 2, FaultKind::Silent, "\"silent\""),
        ("C", 2, FaultKind::NotFinite, "\"not_finite\""),
        ("D", 3, FaultKind::WrongShape, "\"wrong_shape\""),
        ("E", 3, FaultKind::Replayed, "\"replayed\""),
    ];
    let faulty = folder.path().join("faulty");
    fs::create_dir(&faulty).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let table = |(client, round, _, kind): &(&str, u64, FaultKind, &str)| {
        format!("\n[[fault]]\nclient = \"{client}\"\nkind = {kind}\nrounds = [{round}]\n")
    };
    let tables: String = faults.iter().map(table).collect();
    fs::write(faulty.join("micro.toml"), text.clone() + &tables).unwrap();
    let whole = run(&faulty.join("micro.toml"), &folder.path().join("whole"), "2");

    let mut standing = across.begin();
    let mut last: BTreeMap<String, PathBuf> = BTreeMap::new();
    while standing["finished"] != true {
        let round = standing["round"].as_u64().unwrap();
        let mut handed_in = Vec::new();
        for (site, order) in standing["orders"].as_object().unwrap() {
            let order = order.as_str().unwrap();
            let fault = faults.iter().find(|(name, when, ..)| name == site && *when == round);
            let fault = fault.map(|(_, _, fault, _)| *fault);
            if fault == Some(FaultKind::Silent) {
                continue;
            }
            let update = across.train(site, order, round);
            let earlier = last.insert(site.clone(), update.clone());
            handed_in.push(match fault {
                None => update,
                Some(FaultKind::Replayed) => earlier.unwrap(),
                Some(fault) => spoilt(fault, &update, Path::new(order)),
            });
        }
        standing = said(across.server("aggregate").args(handed_in));
    }
    let (one, many) = (results(&whole), results(&folder.path().join("server")));
    for (name, bytes) in &one {
        assert!(many[name] == *bytes, "another {name}");
    }
    let ledger = String::from_utf8(one["ledger.csv"].clone()).unwrap();
    let lines: Vec<&str> = ledger.lines().filter(|line| line.contains("left_out")).collect();
    assert_eq!(lines.len(), 5, "{lines:?}");
    let record: Value = serde_json::from_slice(&fs::read(whole.join("metrics.json")).unwrap()).unwrap();
    for (place, site, expected) in [
        (1, "A", "times the round's median"),
        (1, "B", "it handed in nothing"),
        (1, "C", "is NaN"),
        (2, "D", "of shape"),
        (2, "E", "is of round 2"),
    ] {
        let why = &record["rounds"][place]["left_out"][site];
        assert!(why.as_str().is_some_and(|why| why.contains(expected)), "{site}: {why}");
    }

    let mut report = flapsam();
    report.arg("report").arg(&whole).assert().success();
    let page = fs::read_to_string(whole.join("report.html")).unwrap();
    for expected in [
        "Left out",
        "B, seed 1",
        "it handed in nothing",
        "a bad client (A, B, C, D, E)",
    ] {
        assert!(page.contains(expected), "the report lacks '{expected}'");
    }

    // Without a quorum, one is enough to stop the round, by name.
    fs::write(faulty.join("micro.toml"), text.replace("quorum = 2\n", "") + &tables).unwrap();
    let mut command = flapsam();
    command
        .arg("run")
        .arg(faulty.join("micro.toml"))
        .arg("--data")
        .arg(data());
    let refusal = refused(command.arg("--out").arg(folder.path().join("stopped")));
    assert!(
        refusal.contains("round 2 needs 6 updates that can be used, and has 3")
            && refusal.contains("B: it handed in nothing"),
        "{refusal}"
    );
}

/// The file of an update with a fault in it.
fn spoilt(fault: FaultKind, update: &Path, order: &Path) -> PathBuf {
    let (handed_in, message): (HandedIn, _) = open(&fs::read(update).unwrap()).unwrap();
    let (_, before): (Order, _) = open(&fs::read(order).unwrap()).unwrap();
    let nano = SamConfig::named("nano").unwrap().with_image_size(32);
    let layout = Sam::layout(&nano, Some(&AdapterConfig::lora(2, 4))).unwrap();
    let said = fault.said(decode(&message).unwrap(), &decode(&before).unwrap(), &layout);
    let message = fault.spoilt(encode(&said, Precision::F32), Precision::F32);
    let file = update.with_extension("spoilt");
    fs::write(&file, seal(&handed_in, &message)).unwrap();
    file
}

/// The app that `federate` writes names the experiment's sites, and its experiment is the same one wherever it lies.
#[test]
fn the_app_has_the_experiments_settings() {
    let folder = TempDir::new().unwrap();
    let config = three_rounds(folder.path(), "quorum = 5");
    let app = folder.path().join("app");
    let federate = || {
        let mut command = flapsam();
        command.arg("federate").arg(&config).arg("--data").arg(data());
        command.arg("--print-app").arg(&app);
        command
    };
    federate().assert().success();
    let project = fs::read_to_string(app.join("pyproject.toml")).unwrap();
    assert!(project.contains("sites = \"A,B,C,D,E,F\"\n"), "{project}");
    let experiment = app.join("experiment.toml");
    assert!(
        project.contains(&format!("experiment = \"{}\"\n", experiment.display())),
        "{project}"
    );
    for part in ["server_app", "client_app"] {
        assert!(project.contains(&format!("flapsam_flower.{part}:app")), "{project}");
        assert!(app.join(format!("flapsam_flower/{part}.py")).is_file());
    }
    // One site enrols with the file as it was, and another one with the app's: they have the same agreement.
    let (own, theirs) = (
        Across::new(folder.path(), &config),
        Across::new(folder.path(), &experiment),
    );
    let mut enrolments = vec![theirs.enrol("F")];
    enrolments.extend(SITES[..5].iter().map(|site| own.enrol(site)));
    said(own.server("begin").args(enrolments));
    let refusal = refused(&mut federate());
    assert!(refusal.contains("it is not empty"), "{refusal}");
}
