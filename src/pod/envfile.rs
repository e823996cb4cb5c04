//! Files of variables, the strict part of a shell's syntax that Kubernetes takes: `NAME='value'`
//! (`kubelet-static-pods.md 4.3`). Pure.

use std::collections::BTreeMap;

use thiserror::Error;

/// A file is not of this form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct EnvFileError {
    /// Where it begins, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: &'static str,
}

/// All variables of a file; of two of one name the last counts. Values stand in single quotes and may go over several
/// lines; nothing in them is interpreted. Blanks around names, values and `=` do not count, nor do lines that begin
/// with `#`.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let (this, later) = rest.split_once('\n').unwrap_or((rest, ""));
        if this.is_empty() {
            return Ok(variables);
        }
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let failed = |problem| EnvFileError { line, problem };
        if this.starts_with('#') {
            rest = later;
            continue;
        }
        let (name, value) =
            this.split_once('=').ok_or_else(|| failed("a variable is written NAME='value'"))?;
        let name = name.trim_end_matches([' ', '\t']);
        if name.is_empty() || !name.chars().all(|c| (' '..='~').contains(&c)) {
            return Err(failed("the name must be printable ASCII"));
        }
        let quoted = value.trim_start_matches([' ', '\t']);
        if !quoted.starts_with('\'') {
            return Err(failed("the value must stand in single quotes"));
        }
        let begin = this.len() - quoted.len() + 1;
        let (value, after) =
            rest[begin..].split_once('\'').ok_or_else(|| failed("the value's closing quote is missing"))?;
        let (tail, later) = after.split_once('\n').unwrap_or((after, ""));
        if !tail.trim_matches([' ', '\t', '\r']).is_empty() {
            return Err(failed("nothing may follow the value's closing quote"));
        }
        variables.insert(name.to_owned(), value.to_owned());
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_in_single_quotes_and_are_taken_as_they_are() {
        let text = "# a comment\n\n  A='x y'\nB = ' #$HOME\\n\"' \r\n\tC=''\nD='one\ntwo=\n'\nA='last'";
        let read = parse(text).unwrap();
        let all: Vec<(&str, &str)> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(all, [("A", "last"), ("B", " #$HOME\\n\""), ("C", ""), ("D", "one\ntwo=\n")]);
        assert_eq!(parse("").unwrap(), BTreeMap::new());
        assert_eq!(parse("\n \n#x").unwrap(), BTreeMap::new());
    }

    #[test]
    fn anything_else_is_an_error_with_its_line() {
        for (text, line) in [
            ("A=x", 1),
            ("A=\"x\"", 1),
            ("\n\nA", 3),
            ("A='x'\nB='y'z", 2),
            ("A='x''y'", 1),
            ("A='x\ny'\nB='", 3),
            ("='x'", 1),
            ("é='x'", 1),
            ("A='x' # a comment", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }
}
