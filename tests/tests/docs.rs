//! The documentation: its links lead somewhere, its commands are known to the program, and its front page is short.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{flapsam, root};

/// Words of the front page at most.
const MOST_WORDS: usize = 700;

/// Every page that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "golden/README.md",
    ]
    .map(|page| root().join(page))
    .into();
    for folder in ["docs/src", "trainer/flower"] {
        let files = fs::read_dir(root().join(folder))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    pages.sort();
    pages
}

/// The targets of a page's links and pictures.
fn links(text: &str) -> Vec<String> {
    let markdown = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let pictures = text.split("src=\"").skip(1).filter_map(|rest| rest.split_once('"'));
    markdown.chain(pictures).map(|(target, _)| target.to_owned()).collect()
}

/// What a heading is called in an address, as renderers have it.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).iter().filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file.is_empty() {
                true => page.clone(),
                false => page.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !anchor.is_empty() {
                let known = anchors(&fs::read_to_string(&target).unwrap());
                assert!(
                    known.contains(anchor),
                    "{}: {link}, and there is {known:?}",
                    page.display()
                );
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "{followed}");
}

#[test]
fn the_summary_has_every_chapter() {
    let folder = root().join("docs/src");
    let listed: BTreeSet<String> = links(&fs::read_to_string(folder.join("SUMMARY.md")).unwrap())
        .into_iter()
        .collect();
    let there = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<String> = there.map(|name| name.to_string_lossy().into_owned()).collect();
    assert_eq!(listed, there.into_iter().filter(|name| name != "SUMMARY.md").collect());
}

#[test]
fn the_front_page_is_short() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let words = text.split_whitespace().count();
    assert!(words <= MOST_WORDS, "{words}");
}

/// The commands in a page's code: those of blocks, and of single words in the text.
fn commands(text: &str) -> Vec<Vec<String>> {
    let blocks = text.lines().filter(|line| line.starts_with("    "));
    let spans = text.lines().filter(|line| !line.starts_with("    "));
    let spans = spans.flat_map(|line| line.split('`').skip(1).step_by(2));
    let lines = blocks.chain(spans).map(|line| {
        let line = line.trim().split(" #").next().unwrap_or_default();
        line.replace("cargo run --release -- ", "flapsam ").replace("\\|", "|")
    });
    let commands = lines.filter_map(|line| Some(line.strip_prefix("flapsam ")?.to_owned()));
    commands.map(|command| words(&command)).collect()
}

/// A command line as a shell splits it.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(place, part)| match place % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

/// With `--help` behind them commands do nothing, and what stands before it is still looked at.
#[test]
fn every_command_is_known_to_the_program() {
    let mut tried = 0;
    // What a changelog says was so when it was written.
    for page in pages().iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        for command in commands(&fs::read_to_string(page).unwrap()) {
            // Of several in one, such as `client enrol|round`, the first.
            let command = command.iter().map(|word| word.split('|').next().unwrap_or_default());
            let command: Vec<&str> = command.filter(|word| !word.ends_with("..")).collect();
            let output = flapsam().args(&command).arg("--help").output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success(),
                "{}: flapsam {}: {said}",
                page.display(),
                command.join(" ")
            );
            tried += 1;
        }
    }
    assert!(tried > 40, "{tried}");
}

/// The chapters speak of files that are there.
#[test]
fn files_that_are_named_are_there() {
    let rooms = [
        "golden/",
        "trainer/",
        "tests/",
        "kernels/",
        "model/",
        "viewer/",
        "docs/",
        "data-manifests/",
        "fuzz/",
    ];
    let mut found = 0;
    for page in pages().iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = fs::read_to_string(page).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_file = rooms.iter().any(|room| name.starts_with(room)) && !name.contains([' ', '*', '<', '\n']);
            // A user's own.
            if !is_file || name.contains("thorax") || name.contains("NAME") {
                continue;
            }
            let above = page.parent().unwrap_or(Path::new("."));
            assert!(
                root().join(name).exists() || above.join(name).exists(),
                "{}: there is no {name}",
                page.display()
            );
            found += 1;
        }
    }
    assert!(found > 30, "{found}");
}
