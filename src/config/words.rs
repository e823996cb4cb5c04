//! Words of a shell line, and the files that systemd reads environments from. Pure.

use std::iter::Peekable;
use std::str::Chars;

/// Parts a line at blanks as a shell does: single quotes keep all, double quotes all but `\"`, `\\`, `` \` `` and `\$`,
/// outside of them `\` keeps the next character. Nothing is expanded.
///
/// The error says what is not closed.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut rest = line.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\'' => single(&mut rest, word.get_or_insert_default())?,
            '"' => double(&mut rest, word.get_or_insert_default())?,
            '\\' => match rest.next() {
                // A line that goes on.
                Some('\n') => {}
                Some(kept) => word.get_or_insert_default().push(kept),
                None => return Err("a \\ at the end stands for nothing"),
            },
            blank if blank.is_whitespace() => words.extend(word.take()),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

fn single(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), &'static str> {
    for char in rest {
        match char {
            '\'' => return Ok(()),
            kept => word.push(kept),
        }
    }
    Err("a ' is not closed")
}

fn double(rest: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), &'static str> {
    while let Some(char) = rest.next() {
        match char {
            '"' => return Ok(()),
            '\\' => match rest.next() {
                Some('\n') => {}
                Some(kept @ ('"' | '\\' | '`' | '$')) => word.push(kept),
                Some(other) => word.extend(['\\', other]),
                None => break,
            },
            kept => word.push(kept),
        }
    }
    Err("a \" is not closed")
}

/// One assignment of an environment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variable.
    pub name: String,
    /// Its value without the quotes around it.
    pub value: String,
    /// Where it begins, from 1.
    pub line: usize,
}

/// A line of an environment file that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// Reads a file in the manner of systemd's `EnvironmentFile=`: `NAME=VALUE` lines, comments with `#` or `;`, values in
/// quotes that may span lines, `\` at a line's end. `export NAME=VALUE` is read as well.
pub fn environment(text: &str) -> Result<Vec<Assignment>, BadLine> {
    let mut assignments = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let begin = line.trim_start();
        if begin.is_empty() || begin.starts_with(['#', ';']) {
            continue;
        }
        let bad = |why: String| BadLine { line: at + 1, why };
        let begin = begin.strip_prefix("export ").unwrap_or(begin).trim_start();
        let Some((name, first)) = begin.split_once('=') else {
            return Err(bad("no assignment: NAME=VALUE".to_owned()));
        };
        let name = name.trim_end();
        if !is_name(name) {
            return Err(bad("what stands before = is no name of a variable".to_owned()));
        }
        let mut value = first.trim().to_owned();
        let value = loop {
            match unquoted(&value) {
                Ok(done) => break done,
                Err(why) => match lines.next() {
                    Some((_, more)) => {
                        value.push('\n');
                        value.push_str(more.trim_end());
                    }
                    None => return Err(bad(format!("{name}: {why}"))),
                },
            }
        };
        assignments.push(Assignment { name: name.to_owned(), value, line: at + 1 });
    }
    Ok(assignments)
}

/// A value: in quotes as a whole, or as it stands, with the quotes of its words kept for who parts it.
fn unquoted(value: &str) -> Result<String, &'static str> {
    if !value.starts_with(['"', '\'']) {
        // A `\` before the end of a line takes that end away.
        let odd = value.len() - value.trim_end_matches('\\').len();
        return if odd % 2 == 1 { Err("it ends in the middle") } else { Ok(value.replace("\\\n", "")) };
    }
    let words = split(value)?;
    Ok(words.join(" "))
}

fn is_name(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(ok) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_a_shells() {
        for (line, words) in [
            ("", &[][..]),
            ("  \t ", &[]),
            ("--a=1  --b 2", &["--a=1", "--b", "2"]),
            (r#"--a="x y" 'b c'd"#, &["--a=x y", "b cd"]),
            (r#""a\"b" "c\d" e\ f"#, &["a\"b", r"c\d", "e f"]),
            (r#""" ''"#, &["", ""]),
            ("a\\\n b", &["a", "b"]),
            ("$HOME `x`", &["$HOME", "`x`"]),
        ] {
            assert_eq!(split(line).unwrap(), words, "{line}");
        }
        for bad in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn environment_files_are_systemds() {
        let text = "# the kubelet\n; too\n\nKUBELET_ARGS=\"--cluster-dns=10.254.0.10 --v=2\"\n  export A = 'x y'\nB=--a='1 2' \\\n \
                    --b\nC=\nD=\"one\ntwo\"\n";
        let all = environment(text).unwrap();
        let all: Vec<(&str, &str, usize)> =
            all.iter().map(|a| (a.name.as_str(), a.value.as_str(), a.line)).collect();
        assert_eq!(
            all,
            [
                ("KUBELET_ARGS", "--cluster-dns=10.254.0.10 --v=2", 4),
                ("A", "x y", 5),
                ("B", "--a='1 2'  --b", 6),
                ("C", "", 8),
                ("D", "one\ntwo", 9),
            ]
        );
    }

    #[test]
    fn lines_that_are_no_assignments_are_named() {
        for (text, line, why) in [
            ("A=1\nnonsense\n", 2, "NAME=VALUE"),
            ("1A=1", 1, "name of a variable"),
            ("\nA=\"x\n", 2, "not closed"),
            ("A=x\\", 1, "in the middle"),
        ] {
            let bad = environment(text).unwrap_err();
            assert_eq!(bad.line, line, "{text}");
            assert!(bad.why.contains(why), "{bad:?}");
        }
    }
}
