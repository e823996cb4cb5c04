//! Every planted bug must make some storm break a law.

use std::panic::catch_unwind;

use podstead::plan::mutant::{ALL, Mutant, plant};

use crate::storm;

fn caught(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    for seed in 0..seeds {
        plant(Some(mutant));
        let outcome = catch_unwind(|| storm::run(seed));
        plant(None);
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(broken)) => return Some((seed, broken.lines().next().unwrap_or_default().to_owned())),
            Err(_) => return Some((seed, "a panic".to_owned())),
        }
    }
    None
}

#[test]
fn every_planted_bug_is_caught() {
    let mut missed = Vec::new();
    for mutant in ALL {
        match caught(*mutant, 300) {
            Some((_, broken)) => println!("{mutant:?}: {broken}"),
            None => missed.push(mutant),
        }
    }
    assert!(ALL.len() >= 15);
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
