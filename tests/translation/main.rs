//! What manifests become: golden cases, and laws for random ones.
//!
//! `fixtures/oci/<case>.yaml` is a pod of a few lines; `<case>.expected` is what the CRI server and libcontainer are asked
//! for, by what differs from the case `base`, whose own file has all of it. A new case is a new file;
//! `BLESS=1 cargo test -p podstead --test translation` writes the expected texts anew; read the difference then.
#![allow(clippy::unwrap_used)]

mod case;
#[path = "../support/expected.rs"]
mod expected;
mod flat;
mod laws;
mod random;
mod schema;
mod way;
mod wire;

use std::path::PathBuf;

use case::Case;

fn cases() -> Vec<PathBuf> {
    expected::files("fixtures/oci", &["yaml"])
}

#[test]
fn every_case_becomes_the_expected_requests() {
    let all = cases();
    assert!(all.len() >= 60, "only {} cases", all.len());
    let base = all.iter().find(|path| path.ends_with("base.yaml")).expect("the case base");
    let base_case = Case::read(base);
    let mut wrong = Vec::new();
    for path in &all {
        let got = case::print(&Case::read(path), (path != base).then_some(&base_case));
        expected::expect(&path.with_extension("expected"), &got, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}\nIf this is meant, run the test with BLESS=1.", wrong.join("\n"));
}
