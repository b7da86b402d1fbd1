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
        self.command_with(&self.page, run, data)
    }

    fn command_with(&self, page: &Path, run: &Path, data: &Path) -> assert_cmd::Command {
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
    let mut files = vec![&said["base"], &said["adapter"]];
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
    let said = show.refusal(&mut show.command_with(show.folder.path(), &show.run, data));
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
