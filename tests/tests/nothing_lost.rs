//! Nothing of a user's is written over, moved or deleted unasked.

mod common;
mod micro;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use assert_cmd::Command;
use common::{flapsam, gunzip, root};
use micro::{data, experiment, run};
use tempfile::TempDir;

/// What a command that must not run says.
fn refused(command: &mut Command) -> String {
    let output = command.assert().code(2);
    String::from_utf8_lossy(&output.get_output().stderr).into_owned()
}

/// A finished run, a scan and a base, each in a folder of the test's own.
struct Place {
    folder: TempDir,
    run: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let config = experiment(folder.path(), |text| text.replace("rounds = 2", "rounds = 1"));
        let run = run(&config, &folder.path().join("runs"), "2");
        fs::copy(
            data().join("phantom/case_00000/imaging.nii.gz"),
            folder.path().join("scan.nii.gz"),
        )
        .unwrap();
        fs::copy(
            root().join("golden/nano.safetensors"),
            folder.path().join("base.safetensors"),
        )
        .unwrap();
        Self { folder, run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn segment(&self, out: &Path) -> Command {
        let mut command = flapsam();
        command.arg("segment").arg(self.path("scan.nii.gz"));
        command.arg("--adapter").arg(self.run.join("adapter.safetensors"));
        command.arg("--base").arg(self.path("base.safetensors"));
        command.args(["--device", "cpu", "--out"]).arg(out);
        command.current_dir(self.folder.path());
        command
    }
}

#[test]
fn an_output_is_never_an_input() {
    let place = Place::new();
    let scan = place.path("scan.nii.gz");
    let adapter = place.run.join("adapter.safetensors");
    std::os::unix::fs::symlink(&scan, place.path("link.nii.gz")).unwrap();
    fs::hard_link(&scan, place.path("hard.nii.gz")).unwrap();
    std::os::unix::fs::symlink(place.folder.path(), place.path("folder")).unwrap();
    // A base may have any name.
    fs::rename(place.path("base.safetensors"), place.path("base.nii.gz")).unwrap();
    std::os::unix::fs::symlink("base.nii.gz", place.path("base.safetensors")).unwrap();
    let inputs = [&scan, &adapter, &place.path("base.nii.gz")].map(|path| (path.clone(), fs::read(path).unwrap()));
    for out in [
        "scan.nii.gz",
        "./runs/../scan.nii.gz",
        "link.nii.gz",
        "hard.nii.gz",
        "folder/scan.nii.gz",
        "base.nii.gz",
    ] {
        let said = refused(&mut place.segment(Path::new(out)));
        assert!(said.contains("which is read"), "{out}: {said}");
    }
    let export = |run: &Path, out: &Path| {
        let mut command = flapsam();
        command.arg("export").arg(run).args(["--format", "merged", "--base"]);
        command.arg(place.path("base.safetensors")).arg("--out").arg(out);
        command
    };
    for (run, out) in [
        (&place.run, &adapter),
        (&adapter, &adapter),
        (&place.run, &place.path("base.nii.gz")),
        (&place.run, &place.path("base.safetensors")),
    ] {
        let said = refused(&mut export(run, out));
        assert!(said.contains("which is read"), "{said}");
    }
    let mut report = flapsam();
    report
        .arg("report")
        .arg(&place.run)
        .arg("--out")
        .arg(place.run.join("metrics.json"));
    assert!(refused(&mut report).contains("which is read"));
    for (path, bytes) in inputs {
        assert!(fs::read(&path).unwrap() == bytes, "{}", path.display());
    }
    let run = fs::read_to_string(place.run.join("metrics.json")).unwrap();
    assert!(run.starts_with('{'));
}

#[test]
fn a_mask_is_what_its_name_says() {
    let place = Place::new();
    for name in ["mask.png", "mask.mha", "mask.nrrd", "mask", "mask.gz", "nii.gz"] {
        let said = refused(&mut place.segment(Path::new(name)));
        assert!(said.contains(".nii.gz") && !place.path(name).exists(), "{name}: {said}");
    }
    for name in ["mask.nii", "mask.nii.gz", "MASK.NII.GZ"] {
        place.segment(Path::new(name)).assert().success();
    }
    let plain = fs::read(place.path("mask.nii")).unwrap();
    assert_eq!(&plain[344..348], b"n+1\0");
    assert_eq!(gunzip(&fs::read(place.path("mask.nii.gz")).unwrap()), plain);
    assert_eq!(gunzip(&fs::read(place.path("MASK.NII.GZ")).unwrap()), plain);
}

/// A folder of the user's own is no place for a run; a finished run is not made again; files that lie beside its own stay.
#[test]
fn a_run_leaves_a_users_files_alone() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text.replace("rounds = 2", "rounds = 1"));
    let out = folder.path().join("runs");
    let command = |more: &[&str]| {
        let mut command = flapsam();
        command
            .arg("run")
            .arg(&config)
            .arg("--out")
            .arg(&out)
            .arg("--data")
            .arg(data())
            .args(more);
        command
    };
    let own = out.join("micro-1");
    fs::create_dir_all(own.join("predictions")).unwrap();
    fs::write(own.join("predictions/mine.nii.gz"), b"mine").unwrap();
    let said = refused(&mut command(&[]));
    assert!(said.contains("predictions") && said.contains("--replace"), "{said}");
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1, "not even a lock");

    command(&["--replace"]).assert().success();
    let mask = fs::read_dir(own.join("predictions"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let mask = fs::read_dir(mask).unwrap().next().unwrap().unwrap().path();
    // A corrected mask, and a note.
    fs::write(&mask, b"corrected").unwrap();
    fs::write(own.join("adapter-notes.safetensors"), b"notes").unwrap();
    let metrics = fs::metadata(own.join("metrics.json")).unwrap().modified().unwrap();
    let output = command(&[]).assert().success();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("holds this run already"), "{said}");
    assert_eq!(
        fs::metadata(own.join("metrics.json")).unwrap().modified().unwrap(),
        metrics
    );
    assert_eq!(fs::read(&mask).unwrap(), b"corrected");
    assert_eq!(fs::read(own.join("adapter-notes.safetensors")).unwrap(), b"notes");
}

/// While one process writes into a run's folder or a data set's, another is refused and told which; when the first one is
/// killed, the folder is free.
#[test]
fn one_process_at_a_time_writes_into_a_folder() {
    let folder = TempDir::new().unwrap();
    let config = experiment(folder.path(), |text| text.replace("rounds = 2", "rounds = 400"));
    let out = folder.path().join("runs");
    let start = |arguments: &[&str]| {
        let mut command = std::process::Command::new(flapsam().get_program());
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let run = ["run", &text(&config), "--out", &text(&out), "--data", &text(data())].map(str::to_owned);
    let phantom = ["phantom", "--data", &text(folder.path())].map(str::to_owned);
    for (arguments, lock) in [
        (&run[..], out.join("micro-1/.flapsam.lock")),
        (&phantom[..], folder.path().join("phantom/.flapsam.lock")),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut first = start(&arguments);
        let begun = Instant::now();
        while !fs::read(&lock).is_ok_and(|owner| !owner.is_empty()) {
            assert!(begun.elapsed() < Duration::from_secs(60) && first.try_wait().unwrap().is_none());
            sleep(Duration::from_millis(1));
        }
        let said = refused(flapsam().args(&arguments));
        assert!(said.contains(&format!("process {} ", first.id())), "{said}");
        first.kill().unwrap();
        first.wait().unwrap();
        // The next one gets it.
        let mut second = start(&arguments);
        sleep(Duration::from_millis(300));
        let owner = fs::read_to_string(&lock).unwrap();
        assert!(owner.contains(&format!("process {} ", second.id())), "{owner}");
        let _ = second.kill();
        second.wait().unwrap();
    }
}
