#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| drop(flapsam_tests::hostile::bundle(bytes)));
