//! Fuzzes `encrypted_layer` of `shipfs_tests::parsers`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    shipfs_tests::parsers::run("encrypted_layer", input);
});
