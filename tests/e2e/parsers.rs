//! Feeds every parser of foreign bytes its corpus, so that what a fuzzer once found stays found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shipfs_tests::parsers::{PARSERS, run};

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn parsers_survive_their_corpus() {
    for parser in PARSERS {
        let (mut accepted, mut refused) = (0, 0);
        let mut feed = |input: &[u8]| *if run(parser.name, input) { &mut accepted } else { &mut refused } += 1;
        for path in files(&fuzz().join("corpus").join(parser.name)) {
            let mut input = fs::read(&path).expect("an input");
            // Whole, cut short, and with a byte changed: a corpus of good inputs alone would show little.
            feed(&input);
            feed(&input[..input.len() / 2]);
            if let Some(byte) = input.get_mut(7) {
                *byte ^= 0x81;
                feed(&input);
            }
        }
        assert!(accepted > 0 && refused > 0, "`{}` accepts {accepted} inputs, refuses {refused}", parser.name);
    }
}

#[test]
fn every_parser_has_a_fuzz_target() {
    let stems = |folder: &str| -> BTreeSet<String> {
        files(&fuzz().join(folder))
            .into_iter()
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect()
    };
    let parsers: BTreeSet<String> = PARSERS.iter().map(|parser| parser.name.to_owned()).collect();
    assert_eq!(stems("targets"), parsers);
    assert_eq!(stems("corpus"), parsers);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).expect("a manifest");
    for parser in parsers {
        assert!(manifest.contains(&format!("name = \"{parser}\"")), "`{parser}` is not in the manifest");
    }
}
