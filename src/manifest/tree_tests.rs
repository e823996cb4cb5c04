//! The text reader against hostile and odd texts.

use std::fmt::Write as _;
use std::path::Path;

use super::*;

fn read(text: &str) -> Result<Vec<Rc<Node>>, Vec<String>> {
    let mut refusals = Refusals::new(Path::new("m.yaml"));
    let documents = documents(text, &mut refusals);
    if refusals.is_empty() {
        Ok(documents)
    } else {
        Err(refusals.into_sorted().iter().map(ToString::to_string).collect())
    }
}

#[test]
fn json_is_read_with_tabs_and_escapes() {
    let docs = read("{\n\t\"a\": [1, true, null, \"x\\ty\"],\n\t\"b\": {}\n}\n").unwrap();
    let Value::Seq(items) = &docs[0].get("a").unwrap().value else { panic!() };
    assert_eq!(items.len(), 4);
    assert_eq!(items[3].as_str(), Some("x\ty"));
    assert_eq!(items[3].at, Position { line: 2, column: 23 });
}

#[test]
fn several_documents_are_read_and_empty_ones_left_out() {
    let docs = read("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n...\n").unwrap();
    assert_eq!(docs.len(), 2);
    assert!(docs[1].get("b").is_some());
    assert_eq!(docs[1].at, Position { line: 7, column: 1 });
}

#[test]
fn a_duplicate_key_is_refused_with_both_places() {
    assert_eq!(
        read("a: 1\nb: 2\na: 3\n").unwrap_err(),
        ["m.yaml:3:1: the key \"a\" stands twice in this mapping, first at line 1"]
    );
}

#[test]
fn aliases_and_merges_are_expanded() {
    let docs = read("base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\ncopy: *b\n").unwrap();
    let merged = docs[0].get("use").unwrap();
    assert!(matches!(merged.get("x").unwrap().value, Value::Scalar(Scalar::Int(1))));
    assert!(matches!(merged.get("z").unwrap().value, Value::Scalar(Scalar::Int(3))));
    assert!(docs[0].get("copy").unwrap().get("z").is_some());
}

#[test]
fn a_yaml_bomb_is_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let again = format!("*a{}, ", i - 1).repeat(10);
        writeln!(text, "a{i}: &a{i} [{}]", again.trim_end_matches(", ")).unwrap();
    }
    let errors = read(&text).unwrap_err();
    assert!(errors[0].contains("too large: more than 200000 values"), "{errors:?}");

    let long = "z".repeat(100_000);
    let text = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(100).trim_end_matches(", "));
    assert!(read(&text).unwrap_err()[0].contains("aliases repeat more than"));
}

#[test]
fn deep_nesting_is_refused_not_a_stack_overflow() {
    let errors = read(&"[".repeat(200_000)).unwrap_err();
    assert!(
        errors[0].contains("nested deeper than 64 levels") || errors[0].contains("recursion"),
        "{errors:?}"
    );
    let errors = read(&"- ".repeat(5_000)).unwrap_err();
    assert!(errors[0].contains("nested deeper than 64 levels"), "{errors:?}");
}

#[test]
fn self_reference_unknown_alias_and_tags_are_refused() {
    assert!(read("a: &x [*x]\n").unwrap_err()[0].contains("contains itself"));
    assert!(read("a: *nope\n").unwrap_err()[0].contains("unknown anchor"));
    assert!(read("a: !!binary aGk=\n").unwrap_err()[0].contains("is not accepted here"));
    assert!(read("a: !Thing {}\n").unwrap_err()[0].contains("is not accepted here"));
    assert!(read("? [a]\n: b\n").unwrap_err()[0].contains("a key must be a string"));
    assert!(read("on: b\n").unwrap_err()[0].contains("this one is a boolean"));
    assert_eq!(read("a: !!str 12\n").unwrap()[0].get("a").unwrap().as_str(), Some("12"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}:,&*!|>'\"%@#?<\\-ab0\n\t ]{0,200}") {
        let _ = read(&text);
    }
}
