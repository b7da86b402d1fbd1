//! A federated run of seconds: one training and one test case of each site, two rounds, 32 x 32 pixels.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use assert_cmd::Command;

use crate::common::{flapsam, root};

/// A folder of data sets that holds the phantom, made once for all tests of this program.
pub fn data() -> &'static Path {
    static DATA: OnceLock<PathBuf> = OnceLock::new();
    DATA.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_abandoned(all);
        let data = all.join(format!("data-{}", std::process::id()));
        flapsam().arg("phantom").arg("--data").arg(&data).assert().success();
        data
    })
}

/// Removes what the tests of an earlier process left: its folders end in its number.
fn remove_abandoned(all: &Path) {
    if !Path::new("/proc/self").exists() {
        return;
    }
    for path in std::fs::read_dir(all)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
    {
        let process = path.to_string_lossy().rsplit('-').next().map(str::to_owned);
        let process = process.filter(|number| number.parse::<u32>().is_ok());
        if process.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
            // Another process may do the same at this moment.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Writes a micro experiment; `change` edits its text.
pub fn experiment(folder: &Path, change: impl FnOnce(String) -> String) -> PathBuf {
    let root = root();
    let text = format!(
        r#"title = "micro"
data = "{}"
base = "{}"
model = "nano"
image_size = 32
method = "flap_sam"
rank = 4
rounds = 2
seeds = [1]
device = "cpu"
weight_decay = 0.1
save_predictions = true
cases_per_site = [1, 1]

[preprocessing]
clip = [-100.0, 300.0]

[local]
batch_stacks = 2
stack_stride = 5

[schedule]
base_lr = 1e-3
warmup_period = 5
max_iterations = 100
lr_exp = 2
"#,
        root.join("data-manifests/phantom.json").display(),
        root.join("golden/nano.safetensors").display()
    );
    let path = folder.join("micro.toml");
    std::fs::write(&path, change(text)).unwrap();
    path
}

/// Runs an experiment file and returns its run folder for seed 1.
pub fn run(config: &Path, out: &Path, threads: &str) -> PathBuf {
    run_on(flapsam(), config, out, threads)
}

/// The same with another way to start the program.
pub fn run_on(mut command: Command, config: &Path, out: &Path, threads: &str) -> PathBuf {
    command
        .arg("run")
        .arg(config)
        .arg("--out")
        .arg(out)
        .arg("--data")
        .arg(data());
    command.env("RAYON_NUM_THREADS", threads).assert().success();
    out.join("micro-1")
}

/// `flapsam run`, for a test that starts or judges it itself.
pub fn command(config: &Path, out: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(flapsam().get_program());
    command.arg("run").arg(config).arg("--out").arg(out);
    command.arg("--data").arg(data());
    command
}

/// Starts a run and kills it so long after a round; after the start for round 0.
pub fn kill(config: &Path, out: &Path, round: usize, later: Duration) {
    let mut command = command(config, out);
    let quiet = std::process::Stdio::null;
    let mut program = command.stdout(quiet()).stderr(quiet()).spawn().unwrap();
    let done = out.join(format!("micro-1/checkpoints/round-{round:05}.safetensors"));
    while round > 0 && !done.exists() && program.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(1));
    }
    sleep(later);
    let _ = program.kill();
    program.wait().unwrap();
}
