//! Runs: what they leave behind, and that they repeat to the byte.

mod common;
mod micro;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use assert_cmd::Command;
use common::{flapsam, gunzip, root};
use flapsam::data::manifest::{Case, Manifest};
use flapsam::experiment::metrics::{Grid, SurfaceDistances, dice};
use flapsam_model::checkpoint::{read_safetensors, write_safetensors};
use flapsam_model::random::Random;
use flapsam_model::volume::Volume;
use micro::{command, data, experiment, kill, run};
use tempfile::TempDir;

#[test]
fn a_run_repeats_to_the_byte_whatever_the_threads_and_another_seed_differs() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text);
    let first = run(&config, &folder.path().join("first"), "2");
    let second = run(&config, &folder.path().join("second"), "1");
    let adapter = |run: &Path| fs::read(run.join("adapter.safetensors")).unwrap();
    assert!(
        adapter(&first) == adapter(&second),
        "the same seed gives the same adapter"
    );
    assert_eq!(
        fs::read(first.join("metrics.json")).unwrap(),
        fs::read(second.join("metrics.json")).unwrap()
    );

    let other_folder = TempDir::new().unwrap();
    let other = experiment(other_folder.path(), |text| text.replace("seeds = [1]", "seeds = [2]"));
    let mut command = flapsam();
    command
        .arg("run")
        .arg(other)
        .arg("--out")
        .arg(other_folder.path())
        .arg("--data")
        .arg(data());
    command.assert().success();
    assert!(
        adapter(&first) != adapter(&other_folder.path().join("micro-2")),
        "another seed gives another adapter"
    );
}

#[test]
fn a_run_leaves_its_record() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text);
    let run = run(&config, folder.path(), "2");
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), fs::read(&config).unwrap());

    // The ledger names every byte: its sums are the record's.
    let ledger = fs::read_to_string(run.join("ledger.csv")).unwrap();
    assert_eq!(
        ledger.lines().next(),
        Some("round,client,direction,group,parameters,bytes,formula_bytes")
    );
    let metrics: serde_json::Value = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(
        metrics["cases"].as_array().unwrap().len(),
        6,
        "one test case of each site"
    );
    let weights: f64 = metrics["weights"]
        .as_object()
        .unwrap()
        .values()
        .map(|weight| weight.as_f64().unwrap())
        .sum();
    assert!((weights - 1.0).abs() < 1e-9, "{weights}");
    let sum = |round: &str, direction: &str, column: usize| -> u64 {
        let of_round = ledger.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let chosen = of_round.filter(|cells| cells[0] == round && cells[2] == direction);
        chosen.map(|cells| cells[column].parse::<u64>().unwrap()).sum()
    };
    for (round, name) in [(0, "1"), (1, "2")] {
        let traffic = &metrics["rounds"][round]["traffic"];
        for (direction, column) in [("up", 5), ("down", 5), ("up_by_formula", 6), ("down_by_formula", 6)] {
            let way = direction.split('_').next().unwrap();
            assert_eq!(
                traffic[direction],
                sum(name, way, column),
                "{direction} in round {name}"
            );
        }
        assert_eq!(
            traffic["up_by_formula"],
            6 * 4 * metrics["trained_parameters"].as_u64().unwrap()
        );
    }
    // Four bytes a parameter, six clients, and a header of names.
    let parameters = metrics["trained_parameters"].as_u64().unwrap();
    let up = metrics["rounds"][0]["traffic"]["up"].as_u64().unwrap();
    assert!(
        up > 6 * 4 * parameters && up < 6 * (4 * parameters + 32_000),
        "{up} bytes, {parameters} parameters"
    );

    let provenance: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("provenance.json")).unwrap()).unwrap();
    assert_eq!(provenance["device"], "cpu");
    assert_eq!(provenance["seed"], 1);
    assert_eq!(provenance["base_sha256"].as_str().unwrap().len(), 64);

    // A prediction lies on its scan's grid: the same bytes of shape and affine in the header.
    let case = metrics["cases"][0]["case"].as_str().unwrap();
    let site = metrics["cases"][0]["site"].as_str().unwrap();
    let mask = fs::read(run.join(format!("predictions/{site}/{case}.nii.gz"))).unwrap();
    let scan = fs::read(data().join(format!("phantom/{case}/imaging.nii.gz"))).unwrap();
    let volume = |bytes: &[u8]| Volume::from_nifti(bytes, None).unwrap();
    let (mask, scan) = (volume(&mask), volume(&scan));
    assert_eq!((mask.dims, mask.affine), (scan.dims, scan.affine));

    // Its scores are those of the files.
    let want = volume(&fs::read(data().join(format!("phantom/{case}/segmentation.nii.gz"))).unwrap());
    let labels = |volume: &Volume| {
        volume
            .to_slices()
            .values
            .iter()
            .map(|&label| label as u8)
            .collect::<Vec<_>>()
    };
    let (got, want) = (labels(&mask), labels(&want));
    for class in 0..2 {
        let surfaces = SurfaceDistances::new(&got, &want, class as u8 + 1, Grid::axial(&mask).unwrap());
        let score = |name: &str| metrics["cases"][0][name][class].clone();
        assert_eq!(score("dice"), dice(&got, &want, class as u8 + 1));
        assert_eq!(score("surface_dice"), surfaces.dice(2.0));
        assert_eq!(score("hausdorff_95_mm"), serde_json::json!(surfaces.hausdorff_95()));
    }
    let defined = |case: &&serde_json::Value| case["hausdorff_95_mm"][0].is_number();
    let kidneys = metrics["cases"].as_array().unwrap().iter().filter(defined).count();
    assert_eq!(metrics["hausdorff_95_cases"][0], kidneys);
    assert!(kidneys > 0 && metrics["hausdorff_95_mm"][0].as_f64().unwrap() > 0.0);
}

#[test]
fn full_fine_tuning_and_clients_alone_run_too() {
    let folder = TempDir::new().unwrap();
    let full = experiment(folder.path(), |text| text.replace("flap_sam", "full_ft"));
    let run_full = run(&full, &folder.path().join("full"), "2");
    let metrics = fs::read_to_string(run_full.join("metrics.json")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert!(metrics["trained_parameters"].as_u64().unwrap() > 500_000);

    let alone = experiment(folder.path(), |text| {
        text.replace("rank = 4", "rank = 4\nsetting = \"alone\"")
    });
    let run_alone = run(&alone, &folder.path().join("alone"), "2");
    for site in ["A", "B", "C", "D", "E", "F"] {
        assert!(run_alone.join(format!("adapter-{site}.safetensors")).is_file());
    }
}

/// Of clients with models of their own, each one's is judged on every site's cases, as a matrix; it agrees with what else
/// the record says of them, and with what the adapters do.
#[test]
fn every_clients_model_is_judged_on_every_site() {
    let folder = TempDir::new().unwrap();
    let sites = ["A", "B", "C", "D", "E", "F"];
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let close = |one: f64, other: &serde_json::Value| (one - other.as_f64().unwrap()).abs() < 1e-12;
    for (name, lines) in [
        ("alone", "setting = \"alone\""),
        ("loras", "num_lora = 2"),
        ("fedsa", "aggregation = \"fedsa_lora\""),
    ] {
        let (run, metrics) = record_with(folder.path(), name, lines);
        let matrix = &metrics["dice_by_client"];
        let dice = |client: &str, site: &str, class: usize| matrix[client][site][class].as_f64().unwrap();
        assert_eq!(matrix.as_object().unwrap().len(), 6);
        for class in 0..2 {
            for site in sites {
                // There is one case of each site.
                let on_site = &metrics["dice_by_site"][site][class];
                match name {
                    "alone" => {
                        let models = sites.map(|client| dice(client, site, class));
                        assert!(close(mean(models.into()), on_site), "{name} {site}");
                        let cases = sites.map(|other| dice(site, other, class));
                        assert!(
                            close(mean(cases.into()), &metrics["alone"][site][class]),
                            "{name} {site}"
                        );
                    }
                    _ => assert_eq!(&matrix[site][site][class], on_site, "{name} {site}: its own model's"),
                }
            }
        }
        // What the client of A does to the case of F: segmented by itself, and compared with the labels.
        let of_site = |case: &&serde_json::Value| case["site"] == "F";
        let case = metrics["cases"].as_array().unwrap().iter().find(of_site).unwrap();
        let place = data().join(format!("phantom/{}", case["case"].as_str().unwrap()));
        let mask = folder.path().join(format!("{name}.nii.gz"));
        let adapter = run.join("adapter-A.safetensors");
        segment_with(&adapter, &place.join("imaging.nii.gz"), &mask)
            .assert()
            .success();
        let labels = |path: &Path| -> Vec<u8> {
            let volume = Volume::from_nifti(&fs::read(path).unwrap(), None).unwrap();
            volume.to_slices().values.iter().map(|&label| label as u8).collect()
        };
        let (got, want) = (labels(&mask), labels(&place.join("segmentation.nii.gz")));
        for class in 0..2 {
            let wanted = flapsam::experiment::metrics::dice(&got, &want, class as u8 + 1);
            assert_eq!(dice("A", "F", class), wanted, "{name}, class {class}");
        }
        // Trained apart, they differ; what several LoRAs keep for themselves says too little after four steps.
        let differ = sites.iter().any(|client| dice(client, "F", 0) != dice("F", "F", 0));
        assert!(differ || name != "alone", "all models do the same");
    }
    // Where there is one model, its row is the sites' Dice.
    for (name, lines) in [("federated", ""), ("pooled", "setting = \"pooled\"")] {
        let (_, metrics) = record_with(folder.path(), name, lines);
        assert!(metrics.get("dice_by_client").is_none(), "{name}");
        assert_eq!(metrics["dice_by_site"].as_object().unwrap().len(), 6, "{name}");
    }
}

/// A site that is left out trains nothing, weighs nothing and sends nothing; it is judged all the same.
#[test]
fn a_site_may_be_left_out() {
    let folder = TempDir::new().unwrap();
    let (_, all) = record_with(folder.path(), "all", "");
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let up = |metrics: &serde_json::Value| metrics["rounds"][1]["traffic"]["up"].as_u64().unwrap();
    assert!(all.get("left_out").is_none());
    for setting in ["federated", "pooled"] {
        let lines = format!("leave_out = \"B\"\nsetting = \"{setting}\"");
        let (run, metrics) = record_with(folder.path(), setting, &lines);
        assert_eq!(metrics["left_out"], "B");
        assert_eq!(keys(&metrics["weights"]), ["A", "C", "D", "E", "F"]);
        let weights = |metrics: &serde_json::Value, site: &str| metrics["weights"][site].as_f64().unwrap();
        let others = 1.0 - weights(&all, "B");
        for site in keys(&metrics["weights"]) {
            let share = weights(&all, &site) / others;
            assert!((weights(&metrics, &site) - share).abs() < 1e-12, "{site}");
        }
        assert_eq!(keys(&metrics["dice_by_site"]), ["A", "B", "C", "D", "E", "F"]);
        assert_eq!(metrics["cases"].as_array().unwrap().len(), 6);
        assert_eq!(metrics["untrained_dice"], all["untrained_dice"]);
        if setting == "federated" {
            assert_eq!(keys(&metrics["rounds"][0]["loss"]), ["A", "C", "D", "E", "F"]);
            assert_eq!(6 * up(&metrics), 5 * up(&all));
            let ledger = fs::read_to_string(run.join("ledger.csv")).unwrap();
            assert!(ledger.contains(",A,") && !ledger.contains(",B,"), "{ledger}");
        }
    }
    // Another site left out is another run.
    let refused = |name: &str, lines: &str| {
        let config = experiment(folder.path(), |text| {
            text.replace("rank = 4", &format!("rank = 4\n{lines}"))
        });
        refusal(&config, &folder.path().join(name))
    };
    let text = refused("federated", "leave_out = \"C\"");
    assert!(text.contains("other settings (leave_out"), "{text}");
    let text = refused("nobody", "leave_out = \"Z\"");
    let named = "micro.toml: 'leave_out' is 'Z', and the data have no such site; choose one of A, B, C, D, E, F";
    assert!(text.contains(named), "{text}");
    let text = refused("nobody", "leave_out = \"Z\"\nsetting = \"alone\"");
    assert!(text.contains("judged on all sites' cases anyway"), "{text}");
    let text = refused("nobody", "leave_out = \"B\"\nranks = { B = 2 }");
    assert!(text.contains("'B', and those that train are A, C"), "{text}");
    assert!(!folder.path().join("nobody").exists());
}

/// A site's patients are dealt out to several clients, each of which trains, is judged and may be left out as a site is.
#[test]
fn a_site_may_be_several_clients() {
    let folder = TempDir::new().unwrap();
    let (run, metrics) = record_with(folder.path(), "twelve", "clients_per_site = 2");
    let clients: Vec<String> = ["A", "B", "C", "D", "E", "F"]
        .iter()
        .flat_map(|site| [format!("{site}-1"), format!("{site}-2")])
        .collect();
    let keys = |key: &str| metrics[key].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys("weights"), clients);
    assert_eq!(keys("dice_by_site"), clients);
    // The phantom's cases are numbered by site; each is a patient, and A has nine to train on.
    let cases = metrics["cases"].as_array().unwrap();
    let of = |client: &str| cases.iter().find(|case| case["site"] == client).unwrap()["case"].clone();
    assert_eq!([of("A-1"), of("A-2")], ["case_00009", "case_00010"]);
    assert!(run.join("predictions/A-2/case_00010.nii.gz").is_file());
    let (_, metrics) = record_with(folder.path(), "eleven", "clients_per_site = 2\nleave_out = \"A-2\"");
    assert!(metrics["weights"].get("A-2").is_none() && metrics["weights"].get("A-1").is_some());

    let refused = |lines: &str| {
        let config = experiment(folder.path(), |text| {
            text.replace("rank = 4", &format!("rank = 4\n{lines}"))
        });
        refusal(&config, &folder.path().join("nobody"))
    };
    let text = refused("clients_per_site = 10");
    assert!(text.contains("site 'A' has 9 to train on"), "{text}");
    for few in [0, 1] {
        let text = refused(&format!("clients_per_site = {few}"));
        assert!(text.contains("must be at least 2"), "{text}");
    }
}

/// Where leaving a site out would show nothing, that is said: it trains nothing anyway, it is not judged, or but one other
/// is left to train.
#[test]
fn a_site_is_not_left_out_for_nothing() {
    let folder = TempDir::new().unwrap();
    let phantom = root().join("data-manifests/phantom.json");
    let whole = Manifest::read(&phantom).unwrap();
    let refused = |keep: &dyn Fn(&Case) -> bool| {
        let mut part = whole.clone();
        part.cases.retain(keep);
        part.write(folder.path()).unwrap();
        let config = experiment(folder.path(), |text| {
            let text = text.replace(&phantom.display().to_string(), "phantom.json");
            text.replace("rank = 4", "rank = 4\nleave_out = \"B\"")
        });
        refusal(&config, &folder.path().join("runs"))
    };
    let text = refused(&|case| ["A", "B"].contains(&&*case.site));
    assert!(
        text.contains("only A trains") && text.contains("setting = \"alone\""),
        "{text}"
    );
    let text = refused(&|case| case.site != "B" || case.train);
    assert!(text.contains("has no test case"), "{text}");
    let text = refused(&|case| case.site != "B" || !case.train);
    assert!(text.contains("has no training case anyway"), "{text}");
}

/// What is said when a run is refused.
fn refusal(config: &Path, out: &Path) -> String {
    let refused = Command::from_std(command(config, out)).assert().code(2);
    String::from_utf8_lossy(&refused.get_output().stderr).into_owned()
}

/// The record of a micro run whose experiment file has these lines too.
fn record_with(folder: &Path, name: &str, lines: &str) -> (PathBuf, serde_json::Value) {
    let config = experiment(folder, |text| text.replace("rank = 4", &format!("rank = 4\n{lines}")));
    let run = run(&config, &folder.join(name), "2");
    let metrics = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
    (run, metrics)
}

/// Every option of the federation runs, and does what it is named for.
#[test]
fn the_federations_options_run() {
    let folder = TempDir::new().unwrap();
    let with = |name: &str, lines: &str| record_with(folder.path(), name, lines);
    let up = |metrics: &serde_json::Value| metrics["rounds"][1]["traffic"]["up"].as_u64().unwrap();
    let formula = |metrics: &serde_json::Value| metrics["rounds"][1]["traffic"]["up_by_formula"].as_u64().unwrap();
    let error = |metrics: &serde_json::Value| metrics["rounds"][1]["lora_error"].as_f64().unwrap();
    let (_, plain) = with("plain", "");

    let (_, mean) = with("mean", "aggregation = \"mean_of_factors\"");
    let (stacked_run, stacked) = with("stacked", "aggregation = \"stacked\"");
    assert!(error(&mean) > error(&plain) && error(&plain) > error(&stacked));
    assert!(error(&stacked) < 1e-6, "{}", error(&stacked));
    let down = |metrics: &serde_json::Value| metrics["rounds"][1]["traffic"]["down"].as_u64().unwrap();
    assert!(
        down(&stacked) > 2 * down(&plain),
        "the pairs of six clients go back to each"
    );
    // What was judged is what the adapter holds: the ranks of both rounds together.
    let scan = data().join("phantom/case_00000/imaging.nii.gz");
    segment(&stacked_run, &scan, &folder.path().join("mask.nii.gz"))
        .assert()
        .success();
    let adapter = fs::read(stacked_run.join("adapter.safetensors")).unwrap();
    let adapter = flapsam_model::adapter::Adapter::from_bytes(&adapter).unwrap();
    assert_eq!(adapter.metadata.adapter.rank, 2 * 6 * 4);

    let (_, f16) = with("f16", "precision = \"f16\"");
    let (_, int8) = with("int8", "precision = \"int8\"");
    assert_eq!(
        (2 * formula(&f16), 4 * formula(&int8)),
        (formula(&plain), formula(&plain))
    );
    assert!(up(&int8) < up(&f16) && up(&f16) < up(&plain));
    // The first epoch knows nothing of what travels later; the second starts from what arrived.
    assert_eq!(int8["rounds"][0]["loss"], plain["rounds"][0]["loss"]);
    for (site, loss) in plain["rounds"][1]["loss"].as_object().unwrap() {
        let apart = (int8["rounds"][1]["loss"][site].as_f64().unwrap() - loss.as_f64().unwrap()).abs();
        assert!(apart > 0.0 && apart < 0.02, "{site}: {apart}");
    }

    let config = |text: String| text.replace("[local]\n", "[local]\nproximal = 1.0\n");
    let held = run(&experiment(folder.path(), config), &folder.path().join("held"), "2");
    let held: serde_json::Value = serde_json::from_slice(&fs::read(held.join("metrics.json")).unwrap()).unwrap();
    assert_ne!(held["rounds"][1]["loss"], plain["rounds"][1]["loss"]);
    let (_, adam) = with(
        "adam",
        "aggregation = \"mean_of_factors\"\nserver_adam = { rate = 0.01 }",
    );
    assert_ne!(adam["rounds"][1]["loss"], mean["rounds"][1]["loss"]);
    let (_, pooled) = with("pooled", "setting = \"pooled\"");
    assert_eq!(
        pooled["rounds"][0]["loss"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["pooled"]
    );
    assert_eq!(up(&pooled), 0);
    let (_, dora) = with("dora", "dora = true");
    assert_eq!(dora["trained_parameters"], plain["trained_parameters"]);
    assert_ne!(dora["rounds"][1]["loss"], plain["rounds"][1]["loss"]);
    assert_eq!(with("again", "dora = true").1, dora);

    let (_, every) = with("every", "dice_every = 1");
    assert_eq!(every["rounds"][1]["dice"], every["dice"]);
}

/// Several LoRAs: the weights that mix them differ from client to client, and do not travel.
#[test]
fn mixing_weights_stay_with_their_clients() {
    let folder = TempDir::new().unwrap();
    let (run, metrics) = record_with(folder.path(), "two", "num_lora = 2");
    let adapter = |site: &str| {
        let bytes = fs::read(run.join(format!("adapter-{site}.safetensors"))).unwrap();
        flapsam_model::adapter::Adapter::from_bytes(&bytes).unwrap().state
    };
    let (a, b) = (adapter("A"), adapter("B"));
    let (mixing, shared): (Vec<_>, Vec<_>) = a.keys().partition(|key| key.ends_with(".lora_scale"));
    assert!(!mixing.is_empty() && mixing.iter().any(|key| a[*key] != b[*key]));
    assert!(
        shared.iter().all(|key| a[*key] == b[*key]),
        "the rest is the federation's"
    );
    let trained = metrics["trained_parameters"].as_u64().unwrap();
    let personal = mixing.len() as u64 * 2;
    let sent = metrics["rounds"][0]["traffic"]["up_by_formula"].as_u64().unwrap();
    assert_eq!(sent, 6 * 4 * (trained - personal));
    assert_eq!(
        metrics["cases"].as_array().unwrap().len(),
        6,
        "each case by its own site's model"
    );
}

/// Killed at random moments, each some time after a random round, and started again: the same bytes as undisturbed. Three
/// moments for each way of federation, since each has a state of its own to go on from.
#[test]
fn a_killed_run_goes_on_to_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let mut random = Random::new(7, "moments");
    let mut went_on = 0;
    for (way, lines) in [
        ("plain", ""),
        ("stacked", "aggregation = \"stacked\""),
        ("int8", "precision = \"int8\""),
        (
            "adam",
            "aggregation = \"mean_of_factors\"\nserver_adam = { rate = 0.01 }",
        ),
        ("mixed", "num_lora = 2"),
        ("part", "participation = 0.5"),
        ("prox", ""),
        ("alone", "setting = \"alone\""),
        ("pooled", "setting = \"pooled\""),
    ] {
        let config = experiment(folder.path(), |text| {
            let text = text.replace("rounds = 2", "rounds = 4");
            let text = text.replace("rank = 4", &format!("rank = 4\n{lines}"));
            match way {
                "prox" => text.replace("stack_stride = 5", "stack_stride = 5\nproximal = 0.1"),
                _ => text,
            }
        });
        let started = Instant::now();
        let whole = run(&config, &folder.path().join(way), "2");
        let time = started.elapsed();
        for moment in 0..3 {
            let out = folder.path().join(format!("{way}-{moment}"));
            let round = random.below(4);
            kill(&config, &out, round, time.mul_f64(random.unit() / 4.0));

            let again = command(&config, &out);
            let output = Command::from_std(again).assert().success();
            let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
            went_on += usize::from(text.contains("going on after round"));
            let run = out.join("micro-1");
            assert!(results(&run) == results(&whole), "{way}, moment {moment}: other bytes");
            let mut left: Vec<String> = names(&run.join("checkpoints"));
            left.sort();
            assert_eq!(left, ["round-00003.safetensors", "round-00004.safetensors"]);
            assert!(
                names(&run).iter().all(|name| !name.starts_with(".half")),
                "{:?}",
                names(&run)
            );
        }
    }
    assert!(went_on >= 6, "only {went_on} of 27 runs were killed after a round");
}

/// What a run came to: its adapters, figures and ledger.
fn results(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let result = |name: &String| name.starts_with("adapter") || name == "metrics.json" || name == "ledger.csv";
    let names = names(run).into_iter().filter(result);
    names
        .map(|name| (name.clone(), fs::read(run.join(name)).unwrap()))
        .collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A checkpoint that is not whole is passed over for the one before; one of another program is not gone on from, and stays.
#[test]
fn only_a_whole_checkpoint_of_the_same_experiment_counts() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text);
    let whole = run(&config, folder.path(), "2");
    let adapter = fs::read(whole.join("adapter.safetensors")).unwrap();
    let again = |config: &Path, code: i32, more: &[&str]| {
        let _ = fs::remove_file(whole.join("metrics.json"));
        let mut command = flapsam();
        command
            .arg("run")
            .arg(config)
            .args(more)
            .arg("--out")
            .arg(folder.path())
            .arg("--data")
            .arg(data());
        let output = command.assert().code(code);
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    let newest = whole.join("checkpoints/round-00002.safetensors");
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let text = again(&config, 0, &[]);
    assert!(
        text.contains("is damaged") && text.contains("going on after round 1 of 2"),
        "{text}"
    );
    assert!(fs::read(whole.join("adapter.safetensors")).unwrap() == adapter);
    // What a kill between writing the newest checkpoint and removing the oldest leaves over goes.
    let oldest = whole.join("checkpoints/round-00000.safetensors");
    fs::copy(&newest, &oldest).unwrap();
    let text = again(&config, 0, &[]);
    assert!(text.contains("going on after round 2 of 2"), "{text}");
    assert!(!oldest.exists() && newest.exists());

    // A newer program makes a checkpoint of another fingerprint.
    let (tensors, metadata) = read_safetensors(&fs::read(&newest).unwrap()).unwrap();
    let (key, value) = metadata.into_iter().next().unwrap();
    let value = value.replacen("fingerprint = \"", "fingerprint = \"0", 1);
    for round in 1..=2 {
        let checkpoint = whole.join(format!("checkpoints/round-{round:05}.safetensors"));
        fs::write(checkpoint, write_safetensors(&tensors, Some((&key, value.clone())))).unwrap();
    }
    let checkpoint = fs::read(&newest).unwrap();
    let text = again(&config, 2, &[]);
    assert!(
        text.contains("of another program") && text.contains("--out") && text.contains("--replace"),
        "{text}"
    );
    assert!(fs::read(&newest).unwrap() == checkpoint, "it stays as it is");
    // So does the whole folder, out of the way, when it is replaced.
    let text = again(&config, 0, &["--replace"]);
    assert!(text.contains(".replaced") && !text.contains("going on after"), "{text}");
    assert!(fs::read(whole.join("adapter.safetensors")).unwrap() == adapter);
    let aside = fs::read_dir(folder.path().join(".replaced"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert!(fs::read(aside.path().join("checkpoints/round-00002.safetensors")).unwrap() == checkpoint);
}

/// A folder that holds a run of other settings is left as it is, unless it may be replaced; then nothing of it stays there,
/// and nothing of it is lost.
#[test]
fn a_run_does_not_take_anothers_place_unasked() {
    let folder = TempDir::new().unwrap();
    let alone = experiment(folder.path(), |text| {
        text.replace("rank = 4", "rank = 4\nsetting = \"alone\"")
    });
    let run = run(&alone, folder.path(), "2");
    let metrics = fs::read(run.join("metrics.json")).unwrap();
    fs::create_dir_all(run.join("predictions")).unwrap();
    fs::write(run.join("predictions/stale.nii.gz"), b"stale").unwrap();

    let together = experiment(folder.path(), |text| text);
    let again = |more: &[&str]| {
        let mut command = flapsam();
        command.arg("run").arg(&together).args(more);
        command.arg("--out").arg(folder.path()).arg("--data").arg(data());
        command
    };
    let refused = again(&[]).assert().code(2);
    let text = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
    assert!(
        text.contains("other settings (setting)") && text.contains("--replace") && text.contains("config.toml"),
        "{text}"
    );
    assert_eq!(fs::read(run.join("metrics.json")).unwrap(), metrics);
    again(&["--replace"]).assert().success();
    assert!(run.join("adapter.safetensors").is_file() && !run.join("adapter-A.safetensors").exists());
    assert!(run.join("predictions/case_00000.nii.gz").exists() || !names(&run.join("predictions")).is_empty());
    assert!(!run.join("predictions/stale.nii.gz").exists());
    let aside = fs::read_dir(folder.path().join(".replaced"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    assert_eq!(fs::read(aside.path().join("metrics.json")).unwrap(), metrics);
    assert_eq!(
        fs::read(aside.path().join("predictions/stale.nii.gz")).unwrap(),
        b"stale"
    );
}

/// Half of the six clients take part in a round; which, the seed decides, and only they send.
#[test]
fn clients_may_sit_out_a_round() {
    let folder = TempDir::new().unwrap();
    let with = |participation: &str| {
        let config = experiment(folder.path(), |text| {
            text.replace("rank = 4", &format!("rank = 4\n{participation}"))
        });
        let run = run(
            &config,
            &folder.path().join(participation.replace([' ', '=', '.'], "-")),
            "2",
        );
        let metrics = fs::read(run.join("metrics.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&metrics).unwrap()
    };
    let (all, half) = (with("participation = 1.0"), with("participation = 0.5"));
    let up = |metrics: &serde_json::Value, round: usize| metrics["rounds"][round]["traffic"]["up"].as_u64().unwrap();
    let who = |metrics: &serde_json::Value, round: usize| {
        let losses = metrics["rounds"][round]["loss"].as_object().unwrap();
        losses.keys().cloned().collect::<Vec<_>>()
    };
    for round in 0..2 {
        assert_eq!(up(&all, round), 2 * up(&half, round));
        assert_eq!((who(&all, round).len(), who(&half, round).len()), (6, 3));
    }
    assert_ne!(who(&half, 0), who(&half, 1), "another three in another round");
    // Who sat out the first round fetches what came of it before the second.
    let down = |round: usize| half["rounds"][round]["traffic"]["down"].as_u64().unwrap();
    let late = who(&half, 1)
        .iter()
        .filter(|site| !who(&half, 0).contains(site))
        .count() as u64;
    assert!(late > 0);
    assert_eq!(
        (3 * down(0), 3 * down(1)),
        (3 * up(&half, 0), (3 + late) * up(&half, 1))
    );
    assert_eq!(with("participation = 0.5"), half);
}

/// `segment` with the adapter of a run, on the CPU.
fn segment(run: &Path, scan: &Path, mask: &Path) -> Command {
    segment_with(&run.join("adapter.safetensors"), scan, mask)
}

fn segment_with(adapter: &Path, scan: &Path, mask: &Path) -> Command {
    let mut command = flapsam();
    command.arg("segment").arg(scan).arg("-o").arg(mask);
    command.arg("--adapter").arg(adapter);
    command.arg("--base").arg(root().join("golden/nano.safetensors"));
    command.args(["--device", "cpu", "--json"]);
    command
}

#[test]
fn segment_keeps_the_scans_grid() {
    let folder = TempDir::new().unwrap();
    let run = run(&experiment(folder.path(), |text| text), folder.path(), "2");
    let scan = data().join("phantom/case_00000/imaging.nii.gz");
    let mask = folder.path().join("mask.nii.gz");
    let output = segment(&run, &scan, &mask).assert().success();
    let volume = |path| Volume::from_nifti(&fs::read(path).unwrap(), None).unwrap();
    let (found, scan_volume) = (volume(mask), volume(scan.clone()));
    assert_eq!((found.dims, found.affine), (scan_volume.dims, scan_volume.affine));
    assert!(found.voxels.iter().all(|label| [0.0, 1.0, 2.0].contains(label)));
    let report: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let kidney = found.voxels.iter().filter(|&&label| label == 1.0).count();
    assert_eq!(report["classes"][0]["class"], "kidney");
    assert_eq!(report["classes"][0]["voxels"], kidney);

    // The same scan as the second volume of a series.
    let mut series = gunzip(&fs::read(&scan).unwrap());
    let voxels = series.split_off(352);
    series[40..42].copy_from_slice(&4i16.to_le_bytes());
    series[48..50].copy_from_slice(&2i16.to_le_bytes());
    series.extend(vec![0; voxels.len()]);
    series.extend(voxels);
    let series_path = folder.path().join("series.nii");
    fs::write(&series_path, series).unwrap();
    let second = folder.path().join("second.nii.gz");
    let refusal = segment(&run, &series_path, &second).assert().code(2);
    let text = String::from_utf8_lossy(&refusal.get_output().stderr).into_owned();
    assert!(
        text.contains("series.nii") && text.contains("a series of 2 volumes"),
        "{text}"
    );
    segment(&run, &series_path, &second)
        .args(["--volume", "1"])
        .assert()
        .success();
    assert!(
        volume(second).voxels == found.voxels,
        "a volume of a series is segmented as the scan is"
    );
}
