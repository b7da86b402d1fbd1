//! `codecheck.yml` (CODECHECK's community specification 1.0): which files a checker has to come to again.

use super::{FIGURES, place};
use crate::report::RunFolder;

/// The file's text.
pub fn text(runs: &[RunFolder], agent: Option<&str>) -> String {
    let mut text = String::from("---\nversion: https://codecheck.org.uk/spec/config/1.0/\n");
    text += "manifest:\n";
    for run in runs {
        let file = place(run) + FIGURES;
        text += &format!("  - file: {}\n", quoted(&file));
        let comment = format!("{}, seed {}", run.record.title, run.record.seed);
        text += &format!("    comment: {}\n", quoted(&comment));
    }
    text += "paper:\n";
    text += "  title: \"A Federated Learning-Friendly Approach for Parameter-Efficient Fine-Tuning of SAM in 3D \
             Segmentation\"\n";
    text += "  reference: https://arxiv.org/abs/2407.21739\n";
    text += "  authors: []\n";
    text += &format!("codechecker:\n  - name: {}\n", quoted(agent.unwrap_or("")));
    text += "summary: \"Made with flapsam; 'flapsam bundle verify' checks it, and with --rerun makes every run once more.\"\n";
    text
}

/// A text in YAML's double quotes, whose escapes are JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
