//! Reports: what the page says is what the runs' records hold, and each run's folder is described as an RO-Crate.

mod common;
mod micro;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use common::{flapsam, python, root, script};
use micro::{data, experiment, run};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// A title that would be a script if it were not escaped.
const TITLE: &str = "micro <script>alert(1)</script> & \\\"quotes\\\"";

/// Five runs: FLAP-SAM with two seeds, judged after every round, its clients alone, the same sent as 8-bit integers,
/// and full fine-tuning. Made once; tests work on copies.
fn runs() -> &'static Path {
    static RUNS: OnceLock<PathBuf> = OnceLock::new();
    RUNS.get_or_init(|| {
        // Beside the data, where later test programs clear it away.
        let runs = data().with_file_name(format!("runs-{}", std::process::id()));
        let make = |name: &str, change: &dyn Fn(String) -> String| {
            let folder = TempDir::new().unwrap();
            let config = experiment(folder.path(), |text| {
                change(text.replace("title = \"micro\"", &format!("title = \"{TITLE}\"")))
            });
            run(&config, &runs.join(name), "2");
        };
        make("flap_sam", &|text| {
            text.replace("seeds = [1]", "seeds = [1, 2]\ndice_every = 1")
        });
        make("full_ft", &|text| text.replace("flap_sam", "full_ft"));
        make("alone", &|text| {
            text.replace("rank = 4", "rank = 4\nsetting = \"alone\"")
        });
        make("int8", &|text| {
            text.replace("rank = 4", "rank = 4\nprecision = \"int8\"")
        });
        runs
    })
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// A copy of some of the runs.
fn copied(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    copy(&runs().join(name), folder.path());
    folder
}

/// `report` on a folder, with the data or without.
fn report(folder: &Path, data: &Path) -> assert_cmd::Command {
    let mut command = flapsam();
    command.arg("report").arg(folder).arg("--data").arg(data);
    command.arg("--manifests").arg(root().join("data-manifests"));
    command
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&text(path)).unwrap()
}

/// The table whose caption begins so, as it is written.
fn table<'a>(page: &'a str, caption: &str) -> &'a str {
    let mut tables = page.split("<table");
    let table = tables.find(|table| table.contains(&format!("<strong>{caption}")));
    let table = table.unwrap_or_else(|| panic!("no table '{caption}'"));
    table.split("</table>").next().unwrap()
}

/// The row that begins with this name, of the table whose caption begins so; without tags.
fn row(page: &str, caption: &str, name: &str) -> String {
    let table = table(page, caption);
    let row = table.split("<tr").find(|row| row.contains(&format!(">{name}<")));
    let row = row.unwrap_or_else(|| panic!("no row '{name}' in {table}"));
    let words = row
        .split('<')
        .filter_map(|part| part.split_once('>'))
        .map(|(_, text)| text.trim());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" | ")
}

/// A difference as the page writes it.
fn signed(value: f64) -> String {
    let text = format!("{value:+.3}").replace('-', "\u{2212}");
    if text.ends_with("0.000") { "0.000".into() } else { text }
}

#[test]
fn the_table_holds_the_records_figures() {
    let folder = copied("");
    let out = folder.path().join("elsewhere/page.html");
    let printed = report(folder.path(), data())
        .arg("--json")
        .arg("-o")
        .arg(&out)
        .assert()
        .success();
    let facts: Value = serde_json::from_slice(&printed.get_output().stdout).unwrap();
    let page = text(&out);
    let metrics = |run: &str| json(&folder.path().join(run).join("metrics.json"));
    let (one, two) = (metrics("flap_sam/micro-1"), metrics("flap_sam/micro-2"));
    let (full, alone) = (metrics("full_ft/micro-1"), metrics("alone/micro-1"));
    let int8 = metrics("int8/micro-1");
    let up = |metrics: &Value| {
        let rounds = metrics["rounds"].as_array().unwrap().iter();
        rounds
            .map(|round| round["traffic"]["up"].as_u64().unwrap())
            .sum::<u64>()
    };
    let times = up(&full) as f64 / up(&one) as f64;

    let experiments = facts["comparisons"][0]["experiments"].as_array().unwrap();
    let names: Vec<&str> = experiments
        .iter()
        .map(|experiment| experiment["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["Full fine-tuning", "FLAP-SAM", "FLAP-SAM, 8 bits", "FLAP-SAM, alone"]
    );
    assert_eq!(experiments[1]["seeds"], serde_json::json!([1, 2]));
    assert_eq!(experiments[1]["fewer"]["times"].as_f64(), Some(times));
    assert_eq!(experiments[1]["curve"].as_array().unwrap().len(), 2);

    let flap_sam = row(&page, "Methods", "FLAP-SAM");
    let eight_bits = row(&page, "Variants of FLAP-SAM", "FLAP-SAM, 8 bits");
    let by_itself = row(&page, "Clients alone", "FLAP-SAM, alone");
    for (class, name) in ["kidney", "tumour"].into_iter().enumerate() {
        let dice = |metrics: &Value| metrics["dice"][class].as_f64().unwrap();
        let mean = (dice(&one) + dice(&two)) / 2.0;
        // Of two values: their distance over the square root of two.
        let sd = (dice(&one) - dice(&two)).abs() / 2f64.sqrt();
        let expected = format!("{mean:.3} | ± {sd:.3}");
        assert!(flap_sam.contains(&expected), "{expected}: {flap_sam}");
        let expected = format!("{name} {}", signed(mean - dice(&alone)));
        assert!(flap_sam.contains(&expected), "{expected}: {flap_sam}");
        // A variant is compared with the run that has its seed.
        let expected = format!("{name} {}", signed(dice(&int8) - dice(&one)));
        assert!(eight_bits.contains(&expected), "{expected}: {eight_bits}");
        let expected = format!("{:.3}", dice(&full));
        assert!(
            row(&page, "Methods", "Full fine-tuning").contains(&expected),
            "{expected}"
        );
        let clients = alone["alone"].as_object().unwrap().values();
        let clients = clients.map(|dice| dice[class].as_f64().unwrap());
        let ends = [f64::min, f64::max].map(|end| clients.clone().reduce(end).unwrap());
        let expected = format!("{:.3} | {:.3} to {:.3}", dice(&alone), ends[0], ends[1]);
        assert!(by_itself.contains(&expected), "{expected}: {by_itself}");
    }
    assert!(flap_sam.contains(&format!("| {times:.1} |")), "{flap_sam}");
    let error = int8["rounds"][1]["lora_error"].as_f64().unwrap();
    let expected = if error < 0.001 {
        "| &lt; 0.001".into()
    } else {
        format!("| {error:.3}")
    };
    assert!(eight_bits.ends_with(&expected), "{expected}: {eight_bits}");
    // Surfaces: the means of the record, and how many of the six cases have a distance.
    let surface = |class: usize| {
        let distance = full["hausdorff_95_mm"][class].as_f64();
        let distance = distance.map_or("–".into(), |distance| format!("{distance:.1}"));
        let dice = full["surface_dice"][class].as_f64().unwrap();
        format!("{dice:.3} | {distance} | {} of 6", full["hausdorff_95_cases"][class])
    };
    let expected = format!("Full fine-tuning | {} | {}", surface(0), surface(1));
    assert_eq!(row(&page, "Surface scores", "Full fine-tuning"), expected);
    let parameters = one["trained_parameters"].as_u64().unwrap();
    assert!(
        flap_sam.replace(',', "").contains(&parameters.to_string()),
        "{flap_sam}"
    );
    // A client's row: its weight, its one test case, Dice of both classes; of clients alone, also of its own model.
    let client = |metrics: &Value| {
        let dice = |list: &str| metrics[list]["F"].as_array().cloned().unwrap_or_default();
        let values = [metrics["weights"]["F"].clone(), 1.into()].into_iter();
        let values = values.chain(dice("dice_by_site")).chain(dice("alone"));
        let cells = values.map(|value| match value.as_u64() {
            Some(count) => format!("<td class=\"number\">{count}</td>"),
            None => format!("<td class=\"number\">{:.3}</td>", value.as_f64().unwrap()),
        });
        format!("<th scope=\"row\">F</th>{}", cells.collect::<String>())
    };
    for metrics in [&full, &alone] {
        assert!(page.contains(&client(metrics)), "{}", client(metrics));
    }
    // What must not be missing from a page on synthetic data of one case a site.
    assert!(
        page.contains("Synthetic data")
            && page.contains(one["data_description"].as_str().unwrap().split('\'').next().unwrap())
    );
    assert!(page.contains("Only a part of the cases was used"));
    assert_eq!(
        page.matches("data:image/png;base64,").count(),
        4,
        "one experiment stands for all"
    );
    assert!(page.contains("Training loss over rounds") && page.contains("Dice over rounds"));
}

/// The matrix of models and sites, and that of sites left out: on the page and as JSON what the records hold.
#[test]
fn every_model_stands_beside_every_site() {
    let folder = copied("");
    for (name, lines) in [
        ("pooled", "setting = \"pooled\""),
        ("loras", "num_lora = 2"),
        ("without-b", "leave_out = \"B\""),
        ("without-c", "leave_out = \"C\""),
        ("pooled-without-b", "leave_out = \"B\"\nsetting = \"pooled\""),
    ] {
        let config = experiment(folder.path(), |text| {
            let text = text.replace("title = \"micro\"", "title = \"of sites\"");
            // As the runs that they are compared with.
            let text = match name {
                "without-b" | "without-c" => text.replace("seeds = [1]", "seeds = [1]\ndice_every = 1"),
                _ => text,
            };
            text.replace("rank = 4", &format!("rank = 4\n{lines}"))
        });
        run(&config, &folder.path().join(name), "2");
    }
    let facts = |folder: &Path| -> (Value, String) {
        let printed = report(folder, data()).arg("--json").assert().success();
        let page = text(&folder.join("report.html"));
        check_well_formed(&page);
        (serde_json::from_slice(&printed.get_output().stdout).unwrap(), page)
    };
    let (all, page) = facts(folder.path());
    let comparison = &all["comparisons"][0];
    let metrics = |run: &str| json(&folder.path().join(run).join("metrics.json"));
    let sites = ["A", "B", "C", "D", "E", "F"];
    let mean = |dice: &Value| (dice[0].as_f64().unwrap() + dice[1].as_f64().unwrap()) / 2.0;
    let words = |list: &Value, key: &str| -> Vec<String> {
        let words = list.as_array().unwrap().iter().map(|row| row[key].as_str());
        words.map(|word| word.unwrap_or("none").to_owned()).collect()
    };

    // Full fine-tuning has one run, FLAP-SAM has all that a reader compares; what leaves a site out is elsewhere.
    let matrices = comparison["site_by_site"].as_array().unwrap();
    let methods: Vec<&Value> = matrices.iter().map(|matrix| &matrix["method"]).collect();
    assert_eq!(methods, ["full_ft", "flap_sam"]);
    let matrix = &matrices[1];
    assert_eq!(words(&matrix["sites"], "site"), sites);
    assert!(
        matrix["sites"]
            .as_array()
            .unwrap()
            .iter()
            .all(|site| site["cases"] == 1)
    );
    let of_clients = |words: &str| sites.map(|site| format!("{site}, {words}"));
    let mut models = of_clients("alone").to_vec();
    models.extend(["federated", "pooled"].map(str::to_owned));
    models.extend(of_clients("two LoRAs"));
    models.push("8 bits".into());
    assert_eq!(words(&matrix["rows"], "model"), models);
    let (one, two) = (metrics("flap_sam/micro-1"), metrics("flap_sam/micro-2"));
    let expected = |row: usize, site: &str| match row {
        0..6 => mean(&metrics("alone/micro-1")["dice_by_client"][sites[row]][site]),
        6 => (mean(&one["dice_by_site"][site]) + mean(&two["dice_by_site"][site])) / 2.0,
        7 => mean(&metrics("pooled/micro-1")["dice_by_site"][site]),
        8..14 => mean(&metrics("loras/micro-1")["dice_by_client"][sites[row - 8]][site]),
        _ => mean(&metrics("int8/micro-1")["dice_by_site"][site]),
    };
    let table: Vec<Vec<f64>> = (0..models.len())
        .map(|row| sites.map(|site| expected(row, site)).to_vec())
        .collect();
    for (row, (model, wanted)) in models.iter().zip(&table).enumerate() {
        let shown = self::row(&page, "Site by site, FLAP-SAM", model);
        let mut cells = shown.split(" | ").skip(1).filter(|cell| !cell.starts_with('±'));
        for (column, wanted) in wanted.iter().enumerate() {
            let cell = &matrix["rows"][row]["dice"][column];
            let got = cell["dice"]["mean"].as_f64().unwrap();
            assert!(
                (got - wanted).abs() < 1e-12,
                "{model}, {}: {got}, not {wanted}",
                sites[column]
            );
            let highest = table.iter().map(|row| row[column]).reduce(f64::max).unwrap();
            let best = format!("{wanted:.3}") == format!("{highest:.3}");
            assert_eq!(cell["best"], best, "{model}, {}", sites[column]);
            let star = if best { "★ " } else { "" };
            assert_eq!(cells.next(), Some(&*format!("{star}{wanted:.3}")), "{model}: {shown}");
        }
    }
    assert_eq!(
        matrix["rows"][6]["dice"][0]["by_class"][1].as_f64(),
        Some((one["dice_by_site"]["A"][1].as_f64().unwrap() + two["dice_by_site"]["A"][1].as_f64().unwrap()) / 2.0)
    );
    assert!(!page.contains("Site by site: Full"), "one row is no matrix");

    // Left out: beside the run of the same settings in which all take part, at the seed that both have.
    let left_out = comparison["left_out_sites"].as_array().unwrap();
    assert_eq!(
        words(&comparison["left_out_sites"], "name"),
        ["FLAP-SAM", "FLAP-SAM, pooled"]
    );
    assert_eq!(words(&left_out[0]["rows"], "left_out"), ["none", "B", "C"]);
    assert_eq!(words(&left_out[1]["rows"], "left_out"), ["none", "B"]);
    for (rows, place, run, complete, site, caption) in [
        (&left_out[0], 1, "without-b", "flap_sam", "B", "Left out, FLAP-SAM. "),
        (&left_out[0], 2, "without-c", "flap_sam", "C", "Left out, FLAP-SAM. "),
        (
            &left_out[1],
            1,
            "pooled-without-b",
            "pooled",
            "B",
            "Left out, FLAP-SAM, pooled",
        ),
    ] {
        let on_site = |run: &str| mean(&metrics(&format!("{run}/micro-1"))["dice_by_site"][site]);
        let got = &rows["rows"][place];
        let column = sites.iter().position(|other| *other == site).unwrap();
        assert_eq!(got["dice"][column]["dice"]["mean"].as_f64(), Some(on_site(run)));
        let difference = on_site(run) - on_site(complete);
        let against = got["against_taking_part"].as_f64().unwrap();
        assert!(
            (against - difference).abs() < 1e-12,
            "{run}: {against}, not {difference}"
        );
        let shown = row(&page, caption, &format!("all but {site}"));
        let below = format!("{:.3} | {}", on_site(run), signed(difference));
        assert!(shown.contains(&below), "{below}: {shown}");
    }
    // They are none of the methods and variants.
    for caption in ["Methods", "Variants", "Clients alone"] {
        assert!(!self::table(&page, caption).contains("without"), "{caption}");
    }
    assert!(self::table(&page, "Surface scores").contains("FLAP-SAM, without B"));

    // Records of before there were such figures are shown as far as they go; damaged ones are not.
    let metrics_file = folder.path().join("alone/micro-1/metrics.json");
    let mut alone = json(&metrics_file);
    alone["dice_by_client"]["A"]["B"] = serde_json::json!([0.5]);
    fs::write(&metrics_file, alone.to_string()).unwrap();
    let (all, _) = facts(folder.path());
    assert_eq!(all["left_out"][0]["name"], "alone/micro-1");
    alone.as_object_mut().unwrap().remove("dice_by_client");
    fs::write(&metrics_file, alone.to_string()).unwrap();
    let (all, page) = facts(folder.path());
    let matrix = &all["comparisons"][0]["site_by_site"][1];
    assert_eq!(words(&matrix["rows"], "model"), models[6..]);
    assert_eq!(matrix["missing"], serde_json::json!(["FLAP-SAM, alone"]));
    assert!(page.contains("Rows of FLAP-SAM, alone are missing"));
}

/// What a run without a site shows where no other run is there.
#[test]
fn a_left_out_site_may_stand_by_itself() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| {
        text.replace("rank = 4", "rank = 4\nleave_out = \"B\"")
    });
    run(&config, folder.path(), "2");
    report(folder.path(), data()).assert().success();
    let page = text(&folder.path().join("report.html"));
    check_well_formed(&page);
    assert!(page.contains("FLAP-SAM, without B") && page.contains("in which all take part, is here"));
    let rows: Vec<&str> = page.split("<tr").filter(|row| row.contains(">B</th>")).collect();
    assert!(rows.iter().any(|row| row.contains("left out</td>")), "{rows:?}");
}

/// Elements that have no end tag in HTML.
const VOID: [&str; 2] = ["meta", "br"];

/// Refuses a page whose tags do not close in order, as a reader of XML would.
fn check_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    // In a page that escapes its texts, each '<' begins a tag.
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap_or_else(|| panic!("no '>' after '<{part}'"));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another element");
        } else if !tag.starts_with('!') {
            let name = tag.split([' ', '\n']).next().unwrap();
            assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
            if !VOID.contains(&name) {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
}

#[test]
fn the_page_is_well_formed_by_itself_and_escapes_what_it_shows() {
    let folder = copied("");
    report(folder.path(), data()).assert().success();
    let page = text(&folder.path().join("report.html"));
    check_well_formed(&page);
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp;"),
        "the title is shown as it was written"
    );
    assert!(!page.contains("<script"));
    for reference in ["http:", "https:", "src=", "url(", "@import", "<link"] {
        assert!(!page.contains(reference), "{reference} reaches beyond the page");
    }
    let targets: Vec<&str> = page.split("href=\"").skip(1).collect();
    assert!(
        targets
            .iter()
            .all(|target| target.starts_with("data:image/png") || target.starts_with('#'))
    );
    // Each picture and plot is said in words, and each table and figure has its caption.
    let count = |what: &str| page.matches(what).count();
    assert_eq!(count("role=\"img\""), count("role=\"img\" aria-label=\""));
    assert_eq!(count("<svg"), count("role=\"img\"") + count("aria-hidden=\"true\""));
    assert_eq!(
        (count("<table"), count("<figure")),
        (count("<caption"), count("<figcaption"))
    );
}

/// Every plot of the page is a file too, which needs nothing else: no colour by a variable, which few editors know, and the
/// data's kind in it.
#[test]
fn plots_are_files_beside_the_page() {
    let folder = copied("");
    let printed = report(folder.path(), data()).arg("--json").assert().success();
    let facts: Value = serde_json::from_slice(&printed.get_output().stdout).unwrap();
    let page = text(&folder.path().join("report.html"));
    let figures: Vec<&str> = facts["figures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|path| path.as_str().unwrap())
        .collect();
    assert_eq!(figures.len(), page.matches("<svg class=\"plot\"").count());
    assert!(
        figures[0].ends_with("report-figures/01-dice-over-bytes-kidney.svg"),
        "{figures:?}"
    );
    for figure in figures {
        let figure = text(Path::new(figure));
        check_well_formed(&figure);
        assert!(figure.starts_with("<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(!figure.contains("var(") && figure.contains("#0072b2"), "{figure}");
        assert!(figure.contains("phantom (synthetic data)"), "{figure}");
        let alternative = figure
            .split("<title>")
            .nth(1)
            .unwrap()
            .split("</title>")
            .next()
            .unwrap();
        assert!(page.contains(&format!("aria-label=\"{alternative}\"")), "{alternative}");
    }
}

#[test]
fn a_report_repeats_to_the_byte_wherever_the_runs_are() {
    let (one, other) = (copied(""), copied(""));
    let made = |folder: &TempDir| {
        report(folder.path(), data()).assert().success();
        let description = json(&folder.path().join("full_ft/micro-1/ro-crate-metadata.json"));
        (text(&folder.path().join("report.html")), description)
    };
    let first = made(&one);
    assert!(made(&one) == first, "a second time");
    // A description has the date of its files, and copies have their own.
    assert!(made(&other).0 == first.0, "at another place");
}

#[test]
fn what_pictures_need_may_be_missing() {
    let folder = copied("flap_sam/micro-1");
    let page_without = |data: &Path| {
        let printed = report(folder.path(), data).assert().success();
        let printed = String::from_utf8_lossy(&printed.get_output().stdout).into_owned();
        let page = text(&folder.path().join("report.html"));
        assert!(!page.contains("data:image/png"), "there are pictures");
        let sentence = page
            .split("No pictures: ")
            .nth(1)
            .unwrap()
            .split('<')
            .next()
            .unwrap()
            .to_owned();
        assert!(printed.contains("no pictures: "), "{printed}");
        (page, sentence)
    };
    let empty = TempDir::new().unwrap();
    let (page, sentence) = page_without(empty.path());
    assert!(
        sentence.contains("cannot read") && sentence.contains("imaging.nii.gz"),
        "{sentence}"
    );
    // One run alone: its title is the page's, and full fine-tuning is counted, not measured.
    assert!(page.contains("<h1>micro &lt;script&gt;"));
    assert!(page.contains("By the number of parameters"));

    // Masks that are damaged, and none.
    let predictions = folder.path().join("predictions");
    let mask = fs::read_dir(predictions.join("A"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    for site in ["A", "B", "C", "D", "E", "F"] {
        let file = fs::read_dir(predictions.join(site))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::write(file, b"no NIfTI").unwrap();
    }
    let (_, sentence) = page_without(data());
    assert!(sentence.contains("predictions"), "{sentence}");
    fs::remove_file(mask).unwrap();
    let (_, sentence) = page_without(data());
    assert!(sentence.contains("no run kept the predicted masks"), "{sentence}");
    fs::remove_file(folder.path().join("adapter.safetensors")).unwrap();
    fs::remove_file(folder.path().join("timing.json")).unwrap();
    let (page, _) = page_without(data());
    assert!(
        !page.contains("By the number of parameters"),
        "without the adapter nobody knows the network"
    );
}

#[test]
fn what_cannot_be_reported_is_refused() {
    let refused = |folder: &Path| {
        let output = report(folder, data()).assert().code(2);
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    let folder = TempDir::new().unwrap();
    assert!(refused(folder.path()).contains("there is no run in it"));
    assert!(refused(&folder.path().join("nowhere")).contains("cannot read the folder"));

    let folder = copied("flap_sam/micro-1");
    let metrics = folder.path().join("metrics.json");
    let mut record = json(&metrics);
    record["dice"] = serde_json::json!([0.5]);
    fs::write(&metrics, record.to_string()).unwrap();
    let why = refused(folder.path());
    assert!(
        why.contains("metrics.json") && why.contains("3 classes") && why.contains("1 values"),
        "{why}"
    );
    fs::write(&metrics, "{}").unwrap();
    assert!(refused(folder.path()).contains("metrics.json"));
}

/// Of several runs, one that was never judged is left out by name; the others are shown. Nothing says where they lie.
#[test]
fn a_run_that_cannot_be_shown_is_left_out() {
    let folder = TempDir::new().unwrap();
    for name in ["judged", "unjudged"] {
        copy(&runs().join("flap_sam/micro-1"), &folder.path().join(name));
    }
    let metrics = folder.path().join("unjudged/metrics.json");
    let mut record = json(&metrics);
    for part in ["cases", "dice", "untrained_dice"] {
        record[part] = serde_json::json!([]);
    }
    fs::write(&metrics, record.to_string()).unwrap();
    report(folder.path(), data()).assert().success();
    let page = text(&folder.path().join("report.html"));
    check_well_formed(&page);
    for words in [
        "Left out</h2>",
        "unjudged</strong>: metrics.json: nothing of it was judged",
    ] {
        assert!(page.contains(words), "no '{words}'");
    }
    assert!(!page.contains(folder.path().to_str().unwrap()));
}

#[test]
fn claims_are_judged_by_the_runs_where_there_are_claims() {
    let folder = copied("full_ft/micro-1");
    let page = || text(&folder.path().join("report.html"));
    report(folder.path(), data()).assert().success();
    assert!(!page().contains("paper’s claims"));

    let judged = |file: &Path| {
        let mut command = report(folder.path(), data());
        command.arg("--claims-file").arg(file).assert()
    };
    judged(&root().join("golden/claims.toml")).success();
    let page = page();
    check_well_formed(&page);
    for words in [
        "The paper’s claims</h2>",
        "✓ reproduced",
        "≈ differs",
        "○ not run",
        "<strong>By numbers of parameters. </strong>",
        "<strong>On fed-kits19. </strong>",
        // Of the phantom, and says so.
        "1 run: no claim is about phantom.",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(row(&page, "By numbers", "C1").ends_with("48 times | 49.03 times | ✓ reproduced"));
    // Ours have a section and a table of their own.
    let (papers, ours) = page.split_once("Claims of ours</h2>").unwrap();
    assert!(!papers.contains("hippocampus") && !ours.contains("fed-kits19"));
    let similar = row(&page, "On hippocampus, with mobile_sam", "hippocampus.C3");
    assert!(similar.ends_with("within 2 of 0 | – | – | ○ not run"), "{similar}");

    let refused = judged(Path::new("no/claims.toml")).code(2);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("no/claims.toml"));
}

/// What a run does otherwise than its method is told from its settings.
#[test]
fn variants_have_telling_names() {
    let folder = copied("");
    let variants = [
        ("a", "setting = \"pooled\"", "FLAP-SAM, pooled"),
        ("b", "dora = true", "FLAP-SAM, DoRA, magnitudes frozen"),
        ("c", "num_lora = 2", "FLAP-SAM, two LoRAs"),
        (
            "d",
            "num_lora = 2\nparticipation = 0.3",
            "FLAP-SAM, two LoRAs, 30 % of the clients",
        ),
        ("e", "aggregation = \"mean_of_factors\"", "FLAP-SAM, mean of factors"),
        ("f", "aggregation = \"stacked\"", "FLAP-SAM, stacked"),
        (
            "g",
            "aggregation = \"mean_of_factors\"\nserver_adam = { rate = 0.01 }",
            "FLAP-SAM, FedAdam",
        ),
        ("h", "proximal = 0.1", "FLAP-SAM, FedProx"),
        ("i", "participation = 0.5", "FLAP-SAM, half the clients"),
        ("j", "precision = \"f16\"", "FLAP-SAM, 16 bits"),
    ];
    let one = folder.path().join("flap_sam/micro-1");
    for (name, setting, _) in variants {
        let variant = folder.path().join(name);
        copy(&one, &variant);
        let config = variant.join("config.toml");
        let place = if setting.starts_with("proximal") {
            "batch_stacks = 2"
        } else {
            "rank = 4"
        };
        fs::write(&config, text(&config).replace(place, &format!("{place}\n{setting}"))).unwrap();
        if setting.starts_with("setting") {
            let metrics = variant.join("metrics.json");
            let pooled = text(&metrics).replace("\"federated\"", "\"pooled\"");
            fs::write(&metrics, pooled).unwrap();
        }
    }
    report(folder.path(), data()).assert().success();
    let page = text(&folder.path().join("report.html"));
    let places = variants.map(|(_, _, name)| {
        row(&page, "Variants of FLAP-SAM", name);
        page.find(&format!(">{name}<")).unwrap()
    });
    assert!(places.is_sorted(), "{places:?}");
    // The plots show methods.
    let plots = page
        .split("class=\"plot\"")
        .nth(1)
        .unwrap()
        .split("</svg>")
        .next()
        .unwrap();
    assert!(!plots.contains("DoRA") && plots.contains("FLAP-SAM"));
}

/// The files that a description lists, with their checksums, are those of the folder.
#[test]
fn a_crate_lists_every_file_with_its_checksum() {
    let folder = copied("flap_sam/micro-1");
    report(folder.path(), data()).assert().success();
    let description = json(&folder.path().join("ro-crate-metadata.json"));
    let graph = description["@graph"].as_array().unwrap();
    let files: Vec<&Value> = graph.iter().filter(|entity| entity["@type"] == "File").collect();
    // Adapter, config, ledger, metrics, provenance, timing, trace, the report and its plots, and six masks; no checkpoints.
    let plots = fs::read_dir(folder.path().join("report-figures")).unwrap().count();
    assert_eq!((plots, files.len()), (4, 14 + 4));
    for file in &files {
        let bytes = fs::read(folder.path().join(file["@id"].as_str().unwrap())).unwrap();
        let sum: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(file["sha256"], sum, "{file}");
        assert_eq!(file["contentSize"], bytes.len().to_string());
        assert!(file["encodingFormat"].is_string());
    }
    let of = |id: &str| graph.iter().find(|entity| entity["@id"] == id).unwrap();
    assert_eq!(of("./")["hasPart"].as_array().unwrap().len(), files.len());
    let provenance = json(&folder.path().join("provenance.json"));
    let run = of("#run-1");
    let inputs: Vec<&str> = run["object"]
        .as_array()
        .unwrap()
        .iter()
        .map(|input| input["@id"].as_str().unwrap())
        .collect();
    assert_eq!(inputs[0], "config.toml");
    assert_eq!(of(inputs[1])["sha256"], provenance["data_sha256"]);
    assert_eq!(of(inputs[2])["sha256"], provenance["base_sha256"]);
    let program = of(run["instrument"]["@id"].as_str().unwrap());
    assert!(
        program["softwareVersion"]
            .as_str()
            .unwrap()
            .contains(provenance["commit"].as_str().unwrap_or(""))
    );
    let results = run["result"].to_string();
    assert!(
        results.contains("adapter.safetensors") && results.contains("metrics.json"),
        "{results}"
    );
}

/// CRS4's validator finds nothing, and does find what is damaged; the standard's own library reads all.
#[test]
fn crates_are_valid() {
    let Some(python) = python() else {
        return;
    };
    let folder = copied("");
    report(folder.path(), data()).assert().success();
    let paths = ["alone/micro-1", "flap_sam/micro-1", "full_ft/micro-1"].map(|run| folder.path().join(run));
    let damaged = paths[1].join("ro-crate-metadata.json");
    fs::write(&damaged, text(&damaged).replace("datePublished", "dateForgotten")).unwrap();
    let said = script(&python, "ro_crate.py", &paths);
    let results: Vec<Value> = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let valid: Vec<&Value> = results.iter().map(|result| &result["valid"]).collect();
    assert_eq!(valid, [true, false, true], "{said}");
    assert!(said.contains("datePublished"), "{said}");
    assert_eq!(results[0]["name"], TITLE.replace("\\\"", "\""));
    assert_eq!(results[2]["files"].as_array().unwrap().len(), 13);
}

/// The tables for papers and spreadsheets hold the figures of the records.
#[test]
fn tables_for_papers_hold_the_figures() {
    let folder = copied("");
    let written = |format: &str, ending: &str| {
        let mut command = report(folder.path(), data());
        command.args(["--format", format]).assert().success();
        text(&folder.path().join(format!("report.{ending}")))
    };
    let record = json(&folder.path().join("full_ft/micro-1/metrics.json"));
    let kidney = record["dice"][0].as_f64().unwrap();

    let csv = written("csv", "csv");
    let mut lines = csv.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let place = |name: &str| columns.iter().position(|column| *column == name).unwrap();
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    // Four experiments of two classes each; FLAP-SAM's two seeds are one.
    assert_eq!(rows.len(), 8, "{csv}");
    let full = |row: &&Vec<&str>| row[place("method")] == "full_ft" && row[place("class")] == "kidney";
    let full = rows.iter().find(full).unwrap();
    assert_eq!(full[place("dice_mean")].parse::<f64>().unwrap(), kidney);
    assert_eq!(full[place("data_kind")], "synthetic");
    assert!(
        rows.iter()
            .any(|row| row[place("seeds")] == "1 2" && !row[place("dice_sd")].is_empty())
    );

    let markdown = written("md", "md");
    let latex = written("latex", "tex");
    for table in [&markdown, &latex] {
        assert!(
            table.contains("synthetic data") && table.contains(&format!("{kidney:.3}")),
            "{table}"
        );
    }
    let widths: Vec<usize> = markdown
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(|line| line.matches('|').count())
        .collect();
    assert_eq!(widths.len(), 6, "{markdown}");
    assert!(widths.iter().all(|width| *width == widths[0]), "{markdown}");
    assert_eq!(latex.matches("\\\\\n").count(), 5, "{latex}");
    assert_eq!(
        json(&{
            written("json", "json");
            folder.path().join("report.json")
        })["comparisons"][0]["data"],
        "phantom"
    );
    // None takes a run's own file.
    let run = folder.path().join("full_ft/micro-1");
    for (format, own) in [("csv", "ledger.csv"), ("json", "metrics.json")] {
        let mut command = report(&run, data());
        let output = command
            .args(["--format", format])
            .arg("--out")
            .arg(run.join(own))
            .assert()
            .code(2);
        assert!(String::from_utf8_lossy(&output.get_output().stderr).contains("which is read"));
    }
}
