//! Cases that are files, and the texts that are expected of them. `BLESS=1` writes the texts anew.

use std::fs;
use std::path::{Path, PathBuf};

/// The files below `folder` of the repository that end so, in the order of their names.
pub fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{folder}: {e}")).map(|e| e.unwrap().path());
    let is_one = |path: &PathBuf| path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
    let mut found: Vec<PathBuf> = entries.filter(is_one).collect();
    found.sort();
    found
}

/// Compares with the file, or writes it when blessing.
pub fn expect(file: &Path, got: &str, wrong: &mut Vec<String>) {
    if std::env::var_os("BLESS").is_some() {
        return fs::write(file, got).unwrap();
    }
    let want = fs::read_to_string(file).unwrap_or_default();
    if want != got {
        wrong.push(format!("{}\n--- expected\n{want}--- got\n{got}", file.display()));
    }
}
