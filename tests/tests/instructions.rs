//! A guard on speed that no other program on the machine disturbs: the instructions of two training steps of the small
//! network, start of the program included, counted by valgrind (which has AVX2 and FMA on every processor).

mod common;

use std::process::Command;

use common::{program, root};

/// So much more than the committed count is let pass: compilers and C libraries differ.
const MARGIN: f64 = 1.05;

/// Sizes from which the C library would go over to other instructions: beyond any that occurs.
const C_LIBRARY: &str = "glibc.cpu.x86_rep_stosb_threshold=4294967296:glibc.cpu.x86_rep_movsb_threshold=4294967296:\
    glibc.cpu.x86_non_temporal_threshold=4294967296";

#[test]
fn a_training_step_takes_no_more_instructions_than_it_did() {
    let found = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program())
        .args(["bench", "--work", "nano-step", "--repeats", "1"])
        .env("RAYON_NUM_THREADS", "1")
        // The C library fills and copies by other instructions where caches are larger; an iteration counts as one.
        .env("GLIBC_TUNABLES", C_LIBRARY)
        .output();
    let Ok(output) = found else {
        eprintln!("skipped: no valgrind");
        return;
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected : "));
    let count: f64 = count.expect(&text).1.trim().parse().unwrap();
    let file = root().join("tests/instructions.txt");
    let committed: f64 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    println!("{count} instructions, {committed} committed");
    assert!(
        count <= committed * MARGIN,
        "{count} instructions, {:.1} % more than before. If they gain something else, write the count into {}",
        (count / committed - 1.0) * 100.0,
        file.display(),
    );
}
