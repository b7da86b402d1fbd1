//! The scores of masks, and what is made of them: surface distances and surface Dice equal those of the package
//! surface-distance, bootstrap intervals scipy's and numpy's, and `flapsam diff` says what moved.

mod common;
mod micro;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{flapsam, python, root};
use flapsam::experiment::metrics::{Grid, SurfaceDistances};
use flapsam::verification::golden::{figures, to_text};
use flapsam::verification::statistics::{Interval, bootstrap_interval, hierarchical_interval};
use flapsam_model::random::Random;
use micro::{data, experiment};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two masks on a grid.
#[derive(Debug, Clone)]
struct Pair {
    grid: Grid,
    got: Vec<u8>,
    want: Vec<u8>,
}

impl Pair {
    fn surfaces(&self) -> SurfaceDistances {
        SurfaceDistances::new(&self.got, &self.want, 1, self.grid)
    }
}

/// What a script of `tests/python` says to an input.
fn ask(python: &OsStr, script: &str, input: &Value) -> Vec<Value> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("input.json");
    fs::write(&path, input.to_string()).unwrap();
    let script = root().join("tests/python").join(script);
    let output = Command::new(python)
        .args(["-W", "ignore"])
        .arg(script)
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A few ellipsoids that may reach over the volume's edge, with a share of their voxels turned over.
fn blobs(random: &mut Random, dims: [usize; 3], noise: f64) -> Vec<u8> {
    let blobs: Vec<[[f64; 2]; 3]> = (0..=random.below(3))
        .map(|_| {
            dims.map(|dim| {
                [
                    random.uniform(-1.0, dim as f64),
                    random.uniform(0.7, 1.0 + dim as f64 / 2.0),
                ]
            })
        })
        .collect();
    let [slices, rows, columns] = dims;
    let inside = |place: [usize; 3]| {
        blobs.iter().any(|blob| {
            let parts = place
                .iter()
                .zip(blob)
                .map(|(&at, [centre, radius])| ((at as f64 - centre) / radius).powi(2));
            parts.sum::<f64>() <= 1.0
        })
    };
    (0..slices * rows * columns)
        .map(|index| inside([index / (rows * columns), index / columns % rows, index % columns]))
        .map(|inside| u8::from(inside != random.chance(noise)))
        .collect()
}

/// Blobs, noise, single voxels, whole volumes and empty masks, all against all, on several grids.
fn pairs() -> Vec<Pair> {
    let grids = [
        ([9, 14, 11], [1.0, 1.0, 1.0]),
        ([7, 13, 17], [3.0, 0.78125, 0.78125]),
        ([12, 5, 8], [0.8, 2.5, 1.2999999523162842]),
        ([1, 12, 9], [5.0, 0.7, 0.9]),
        ([6, 1, 1], [0.5, 1.0, 1.0]),
        ([2, 2, 2], [1.7, 0.6, 1.1]),
    ];
    let mut random = Random::new(3, "masks");
    let mut pairs = Vec::new();
    for (dims, spacing) in grids {
        let count = dims.iter().product::<usize>();
        let mut masks = vec![vec![0; count], vec![1; count]];
        masks.extend((0..2).map(|_| {
            let mut mask = vec![0; count];
            mask[random.below(count)] = 1;
            mask
        }));
        masks.extend([0.0, 0.0, 0.0, 0.02, 0.2, 0.5].map(|noise| blobs(&mut random, dims, noise)));
        for got in &masks {
            pairs.extend(masks.iter().map(|want| Pair {
                grid: Grid { dims, spacing },
                got: got.clone(),
                want: want.clone(),
            }));
        }
    }
    pairs
}

#[test]
fn surface_scores_equal_the_published_ones() {
    let Some(python) = python() else {
        return;
    };
    let tolerances = [0.0, 1.0, 2.0, 2.4];
    let pairs = pairs();
    let with_tolerance = || pairs.iter().zip(tolerances.into_iter().cycle());
    let cases: Vec<Value> = with_tolerance()
        .map(|(pair, tolerance)| {
            json!({
                "dims": pair.grid.dims,
                "spacing": pair.grid.spacing,
                "tolerance": tolerance,
                "got": pair.got,
                "want": pair.want,
            })
        })
        .collect();
    let theirs = ask(&python, "surface.py", &cases.into());
    assert_eq!(theirs.len(), pairs.len());
    let (mut furthest, mut defined) = (0.0f64, 0);
    for ((pair, tolerance), theirs) in with_tolerance().zip(&theirs) {
        let surfaces = pair.surfaces();
        let hausdorff = surfaces.hausdorff_95();
        assert_eq!(
            hausdorff.is_some(),
            theirs["hausdorff_95"].is_f64(),
            "{pair:?} {theirs}"
        );
        if let Some(hausdorff) = hausdorff {
            defined += 1;
            furthest = furthest.max((hausdorff - theirs["hausdorff_95"].as_f64().unwrap()).abs());
        }
        // Theirs of two empty masks is no number.
        let dice = theirs["surface_dice"].as_f64().unwrap_or(1.0);
        furthest = furthest.max((surfaces.dice(tolerance) - dice).abs());
        assert!(
            furthest < 1e-9,
            "{furthest}: {pair:?} {tolerance} {theirs} {surfaces:?}"
        );
    }
    assert!(defined > 400, "{defined}");
    println!(
        "{} pairs, {defined} with distances, furthest apart {furthest:e}",
        pairs.len()
    );
}

fn arbitrary_pair() -> impl Strategy<Value = Pair> {
    let dims = [1..7usize, 1..7usize, 1..7usize];
    let spacing = proptest::array::uniform3(0.2..5.0f64);
    (dims, spacing).prop_flat_map(|(dims, spacing)| {
        let mask = || proptest::collection::vec(0..2u8, dims.iter().product::<usize>());
        (mask(), mask()).prop_map(move |(got, want)| Pair {
            grid: Grid { dims, spacing },
            got,
            want,
        })
    })
}

proptest! {
    #[test]
    fn surface_scores_are_symmetric_and_grow_with_the_tolerance(pair in arbitrary_pair(), tolerance in 0.0..4.0f64) {
        let surfaces = pair.surfaces();
        let turned = SurfaceDistances::new(&pair.want, &pair.got, 1, pair.grid);
        prop_assert_eq!(surfaces.hausdorff_95(), turned.hausdorff_95());
        let dice = surfaces.dice(tolerance);
        prop_assert_eq!(dice, turned.dice(tolerance));
        prop_assert!((0.0..=1.0).contains(&dice), "{}", dice);
        prop_assert!(dice <= surfaces.dice(tolerance + 1.0));
    }

    #[test]
    fn equal_masks_have_distance_zero_and_surface_dice_one(pair in arbitrary_pair()) {
        let surfaces = SurfaceDistances::new(&pair.got, &pair.got, 1, pair.grid);
        prop_assert_eq!(surfaces.dice(0.0), 1.0);
        prop_assert_eq!(surfaces.hausdorff_95(), pair.got.contains(&1).then_some(0.0));
    }
}

#[test]
fn bootstrap_intervals_are_scipys() {
    let Some(python) = python() else {
        return;
    };
    let mut random = Random::new(4, "samples");
    let mut sample = |count: usize, draw: &dyn Fn(&mut Random) -> f64| -> Vec<f64> {
        (0..count).map(|_| draw(&mut random)).collect()
    };
    let samples = [
        sample(22, &|random| 0.02 + 0.1 * random.normal()),
        sample(22, &|random| random.uniform(-0.3, 0.1)),
        // Differences of Dice are often zero, and seldom far from it.
        sample(60, &|random| if random.chance(0.7) { 0.0 } else { random.unit() }),
        sample(400, &|random| random.normal().exp()),
    ];
    let theirs = ask(&python, "bootstrap.py", &json!(samples));
    for (sample, theirs) in samples.iter().zip(theirs) {
        assert_alike(bootstrap_interval(sample).unwrap(), &theirs);
    }
}

/// Both draw at random: an end is the mean of a few hundred resamples that happen to lie there.
fn assert_alike(ours: Interval, theirs: &Value) {
    let [low, high] = [0, 1].map(|end| theirs[end].as_f64().unwrap());
    let furthest = (ours.low - low).abs().max((ours.high - high).abs());
    assert!(furthest < 0.04 * (high - low), "{ours:?}, Python {theirs}");
}

#[test]
fn hierarchical_intervals_are_numpys() {
    let Some(python) = python() else {
        return;
    };
    let mut random = Random::new(6, "samples");
    // By site, patient (of one case or two), case and seed; sites differ.
    let mut sample = |seeds: usize, patients: &[usize]| -> Vec<Vec<Vec<Vec<f64>>>> {
        let mut of_site = |&patients: &usize| {
            let site = 0.02 * random.normal();
            let mut of_patient = |patient: usize| {
                let mut of_case = |_| (0..seeds).map(|_| site + 0.03 * random.normal()).collect();
                (0..=patient % 2).map(&mut of_case).collect()
            };
            (0..patients).map(&mut of_patient).collect()
        };
        patients.iter().map(&mut of_site).collect()
    };
    let samples = [
        sample(5, &[15, 5, 62]),
        sample(8, &[4, 9, 1, 6, 12, 7]),
        sample(1, &[22]),
    ];
    let theirs = ask(&python, "hierarchical.py", &json!(samples));
    for (sample, theirs) in samples.iter().zip(theirs) {
        assert_alike(hierarchical_interval(sample).unwrap(), &theirs);
    }
}

#[test]
fn a_run_of_two_seeds_says_mean_and_standard_deviation() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text.replace("seeds = [1]", "seeds = [1, 2]"));
    let mut command = flapsam();
    command.arg("run").arg(config).arg("--json");
    command.arg("--out").arg(folder.path()).arg("--data").arg(data());
    let output = command.assert().success();
    let report: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let [one, other] = [0, 1].map(|run| report["runs"][run]["dice"][0].as_f64().unwrap());
    assert_ne!(one, other);
    let rows = report["over_seeds"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["row"] == "all test cases" && row["class"] == "kidney")
        .unwrap();
    assert_eq!(row["seeds"], 2);
    let near = |name: &str, want: f64| assert!((row[name].as_f64().unwrap() - want).abs() < 1e-12, "{row} {want}");
    near("mean", (one + other) / 2.0);
    near("standard_deviation", (one - other).abs() / 2f64.sqrt());
}

/// `flapsam diff`: exit code and output.
fn diff(first: &Path, second: &Path, options: &[&str]) -> (i32, String) {
    let output = flapsam()
        .arg("diff")
        .arg(first)
        .arg(second)
        .args(options)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn diff_says_what_moved_between_two_runs() {
    let folder = TempDir::new().unwrap();
    let out = |name: &str| folder.path().join(name);
    let config = experiment(folder.path(), |text| text);
    let run = micro::run(&config, &out("one"), "2");
    let config = experiment(folder.path(), |text| text.replace("rounds = 2", "rounds = 3"));
    let longer = micro::run(&config, &out("longer"), "2");

    let (code, text) = diff(&run, &run, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("figures did not move") && text.contains("no case moved"),
        "{text}"
    );
    assert!(!text.contains("trained_parameters"), "{text}");
    let (code, text) = diff(&run, &run, &["--all"]);
    assert!(code == 0 && text.contains("trained_parameters"), "{text}");

    // A third round sends more, and moves cases; the first round's loss stays.
    let (code, text) = diff(&run, &longer, &[]);
    let failed = |name: &str| text.lines().any(|line| line.contains(name) && line.contains("FAILED"));
    assert!(code == 1 && failed("bytes_up"), "{text}");
    assert!(
        !text.contains("round_1.loss.A") && text.contains("Cases that moved most"),
        "{text}"
    );
    let (code, text) = diff(&run, &longer, &["--json"]);
    assert_eq!(code, 1, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["passed"], false);
    // All cases and the six sites, by two classes.
    let paired = report["dice"]["paired"].as_array().unwrap();
    assert_eq!(paired.len(), 14);
    let kidney = &paired[0];
    let number = |value: &Value| value.as_f64().unwrap();
    let [low, high] = ["low", "high"].map(|end| number(&kidney["interval"][end]));
    let dice = |run: &Path| {
        let metrics: Value = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
        number(&metrics["dice"][0])
    };
    assert!(
        (number(&kidney["difference"]) - (dice(&longer) - dice(&run))).abs() < 1e-12,
        "{kidney}"
    );
    assert!(
        low <= number(&kidney["difference"]) && number(&kidney["difference"]) <= high,
        "{kidney}"
    );
    let moved: Vec<f64> = report["dice"]["moved_most"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| number(&case["difference"]).abs())
        .collect();
    assert!(
        !moved.is_empty() && moved.is_sorted_by(|one, other| one >= other),
        "{moved:?}"
    );

    // Other cases cannot be paired.
    let config = experiment(folder.path(), |text| text.replace("[1, 1]", "[1, 2]"));
    let (code, text) = diff(&run, &micro::run(&config, &out("more"), "2"), &[]);
    assert!(code == 1 && text.contains("not over the same cases"), "{text}");
}

#[test]
fn diff_compares_a_run_with_golden_figures() {
    let folder = TempDir::new().unwrap();
    let run = micro::run(&experiment(folder.path(), |text| text), folder.path(), "2");
    let read = |name: &str| fs::read(run.join(name)).unwrap();
    let record = serde_json::from_slice(&read("metrics.json")).unwrap();
    let provenance = serde_json::from_slice(&read("provenance.json")).unwrap();
    let golden = to_text(&figures(&record, &provenance));
    let snapshot = folder.path().join("micro.snap");
    fs::write(&snapshot, &golden).unwrap();
    let (code, text) = diff(&snapshot, &run, &[]);
    assert!(code == 0 && !text.contains("Dice case by case"), "{text}");

    let line = golden.lines().find(|line| line.starts_with("bytes_up")).unwrap();
    fs::write(&snapshot, golden.replace(line, "bytes_up = 7")).unwrap();
    for (first, second) in [(&snapshot, &run), (&run, &snapshot)] {
        let (code, text) = diff(first, second, &[]);
        assert!(code == 1 && text.contains("1 figures of B"), "{text}");
    }

    // Neither a run folder nor a snapshot.
    for wrong in ["nowhere", ""] {
        let (code, text) = diff(&run, &folder.path().join(wrong), &[]);
        assert!(code == 2 && text.contains("check the path"), "{text}");
    }
}

/// `flapsam diff` with groups of runs: exit code and output.
fn diff_groups(first: &[&Path], second: &[&Path], options: &[&str]) -> (i32, String) {
    let mut command = flapsam();
    command.arg("diff").args(first).arg("--with").args(second).args(options);
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn diff_compares_two_groups_of_runs() {
    let folder = TempDir::new().unwrap();
    let out = |name: &str| folder.path().join(name);
    let of_seeds = |name: &str, rounds: usize, seeds: &str| {
        let config = experiment(folder.path(), |text| {
            text.replace("rounds = 2", &format!("rounds = {rounds}"))
                .replace("[1]", seeds)
        });
        micro::run(&config, &out(name), "2");
        out(name)
    };
    let short = of_seeds("short", 2, "[1, 2, 5]");
    let long = of_seeds("long", 3, "[1, 2, 4]");
    let (code, text) = diff_groups(&[&short], &[&long], &["--json"]);
    assert_eq!(code, 0, "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        report["paired"],
        json!({"seeds": 2, "sites": 6, "patients": 6, "cases": 6})
    );
    assert_eq!(
        report["left_out"],
        json!({"seeds_of_first": [5], "seeds_of_second": [4], "cases": []})
    );
    assert_eq!(
        (&report["same_data"], &report["same_base"]),
        (&json!(true), &json!(true))
    );
    // All cases and the six sites, by two classes; each the mean of what the paired records hold.
    let rows = report["dice"].as_array().unwrap();
    assert_eq!(rows.len(), 14);
    let kidney = |group: &Path| {
        let dice = |seed: usize| {
            let bytes = fs::read(group.join(format!("micro-{seed}/metrics.json"))).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()["dice"][0]
                .as_f64()
                .unwrap()
        };
        (dice(1) + dice(2)) / 2.0
    };
    let number = |key: &str| rows[0][key].as_f64().unwrap();
    let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got}, not {want}");
    near(number("first"), kidney(&short));
    near(number("second"), kidney(&long));
    near(number("difference"), kidney(&long) - kidney(&short));
    let [low, high] = ["low", "high"].map(|end| rows[0]["interval"][end].as_f64().unwrap());
    assert!(
        low <= number("difference") && number("difference") <= high,
        "{}",
        rows[0]
    );

    // Folders of runs and runs themselves; what a pattern of the shell's matches besides is left out by name.
    let [one, two] = [1, 2].map(|seed| short.join(format!("micro-{seed}")));
    let beside = out("micro.figures");
    fs::write(&beside, "").unwrap();
    let (code, text) = diff_groups(&[&one, &beside, &two], &[&long], &[]);
    assert_eq!(code, 0, "{text}");
    for words in [
        "A is 2 runs of 'micro'",
        "paired by seed and case: 2 seeds, 6 sites, 6 patients, 6 cases",
        "only B has: 4",
        "micro.figures: it is a file",
    ] {
        assert!(text.contains(words), "no '{words}' in {text}");
    }
    // What was moved aside is no seed of the experiment.
    fs::create_dir(short.join(".replaced")).unwrap();
    fs::rename(short.join("micro-5"), short.join(".replaced/micro-5")).unwrap();
    let (code, text) = diff_groups(&[&short], &[&long], &[]);
    assert!(
        code == 0 && text.contains("A is 2 runs") && !text.contains("only A"),
        "{text}"
    );
    let (code, text) = diff_groups(&[&one], &[&long], &[]);
    assert!(code == 0 && text.contains("one seed: "), "{text}");

    // What is no group says so.
    let refused = |first: &[&Path], second: &[&Path], words: &str| {
        let (code, text) = diff_groups(first, second, &[]);
        assert!(code == 2 && text.contains(words), "no '{words}' in {text}");
    };
    refused(&[&one, &long.join("micro-2")], &[&long], "differ in rounds");
    refused(&[&one], &[&two], "no seed is in both groups");
    refused(&[&one], &[&beside], "B has no run");
    refused(&[&out("nowhere")], &[&long], "check the path");
    let copy = out("copy/micro-1");
    fs::create_dir_all(&copy).unwrap();
    for file in ["metrics.json", "provenance.json", "config.toml"] {
        fs::copy(one.join(file), copy.join(file)).unwrap();
    }
    refused(&[&short, &copy], &[&long], "the seed 1 twice");
    // Neither two nor groups.
    for runs in [&[&one][..], &[&one, &two, &one]] {
        let output = flapsam().arg("diff").args(runs).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && text.contains("--with"), "{text}");
    }
}

/// MLPerf's rule for reference convergence points: runs that reach a Dice sooner than the reference, or never, do not pass.
#[test]
fn diff_says_which_group_reaches_a_dice_sooner() {
    let folder = TempDir::new().unwrap();
    let run = micro::run(
        &experiment(folder.path(), |text| text),
        &folder.path().join("made"),
        "2",
    );
    let record: Value = serde_json::from_slice(&fs::read(run.join("metrics.json")).unwrap()).unwrap();
    // Copies of the run that were judged after every one of ten rounds, and have Dice 0.5 from some round on.
    let group = |name: &str, reached: &[usize]| {
        let group = folder.path().join(name);
        for (seed, &reached) in (1..).zip(reached) {
            let copy = group.join(format!("micro-{seed}"));
            fs::create_dir_all(&copy).unwrap();
            for file in ["provenance.json", "config.toml"] {
                fs::copy(run.join(file), copy.join(file)).unwrap();
            }
            let dice = |round: usize| {
                if round >= reached {
                    json!([0.4, 0.6])
                } else {
                    json!([0.6, 0.3])
                }
            };
            let mut record = record.clone();
            record["seed"] = json!(seed);
            record["rounds"] = (1..=10)
                .map(|round| {
                    let mut entry = record["rounds"][0].clone();
                    entry["dice"] = dice(round);
                    entry
                })
                .collect();
            record["dice"] = dice(10);
            fs::write(copy.join("metrics.json"), record.to_string()).unwrap();
        }
        group
    };
    let reference = group("reference", &[8, 9, 10, 9]);
    let compare = |other: &Path, reach: &str| {
        let (code, text) = diff_groups(&[&reference], &[other], &["--reach", reach, "--json"]);
        let report: Value = serde_json::from_str(&text).unwrap_or(json!(text));
        (code, report["convergence"].clone(), text)
    };
    let (code, found, _) = compare(&group("as-fast", &[8, 10]), "0.5");
    assert_eq!((code, &found["verdict"]), (0, &json!("as_the_reference")));
    assert_eq!(found["reference"], json!({"rounds": [8, 9, 10, 9], "mean": 9.0}));
    assert_eq!(found["chance"], Value::Null);
    let (code, found, _) = compare(&group("faster", &[3, 4]), "0.5");
    assert_eq!((code, &found["verdict"]), (1, &json!("faster")));
    assert!(found["chance"].as_f64().unwrap() < 0.05, "{found}");
    // Faster, and by no more than chance explains.
    let (code, found, _) = compare(&group("a-little-faster", &[7, 10]), "0.5");
    assert_eq!((code, &found["verdict"]), (0, &json!("as_the_reference")));
    assert!(found["chance"].as_f64().unwrap() > 0.05, "{found}");
    let (code, found, _) = compare(&group("never", &[9, 11]), "0.5");
    assert_eq!((code, &found["verdict"]), (1, &json!("not_reached")));
    // All have 0.4 from the first round on.
    let (code, found, _) = compare(&folder.path().join("faster"), "0.4");
    assert_eq!((code, found["compared"]["mean"].as_f64()), (0, Some(1.0)));
    let (code, text) = diff_groups(&[&reference], &[&folder.path().join("faster")], &["--reach", "0.5"]);
    assert!(code == 1 && text.contains("A: 8, 9, 10, 9; 9.0 on average"), "{text}");
    assert!(text.contains("FAILED: B is faster than A"), "{text}");
    let (code, _, text) = compare(&folder.path().join("faster"), "0.9");
    assert!(code == 2 && text.contains("choose a lower one"), "{text}");
    let (code, _, text) = compare(&folder.path().join("faster/micro-1"), "0.5");
    assert!(code == 2 && text.contains("at least two seeds"), "{text}");
}
