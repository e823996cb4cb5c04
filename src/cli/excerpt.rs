//! What is wrong with a manifest, shown in its own text as compilers show it. Pure: makes strings.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use crate::manifest::Refusal;

/// Lines shown above the one that is meant: the parent of a field often says what it is.
const ABOVE: usize = 2;

/// Whether the manifest is refused for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Refused.
    Error,
    /// Taken.
    Warning,
}

/// One remark with the lines it is about. `text` is the manifest; control characters in it do not reach the terminal.
pub fn excerpt(text: &str, remark: &Refusal, severity: Severity, colours: bool) -> String {
    let level = match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = match remark.field.as_str() {
        "" => remark.message.clone(),
        field => format!("{field}: {}", remark.message),
    };
    let first = remark.at.line.saturating_sub(ABOVE).max(1);
    let window: Vec<&str> = text.lines().skip(first - 1).take(remark.at.line - first + 1).collect();
    let path = clean(&remark.file.display().to_string());
    let group = level.primary_title(title);
    let group = if window.len() > remark.at.line - first {
        let span = span(&window, remark.at.column);
        let source = window.join("\n");
        let label = remark.suggestion.as_ref().map(|name| format!("did you mean \"{name}\"?"));
        let mark = AnnotationKind::Primary.span(span).label(label);
        group.element(Snippet::source(source).line_start(first).path(path).fold(false).annotation(mark))
    } else {
        group.element(annotate_snippets::Origin::path(path).line(remark.at.line))
    };
    let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
    renderer.decor_style(if colours { DecorStyle::Unicode } else { DecorStyle::Ascii }).render(&[group])
}

/// The bytes of the word at `column` of the last line; columns count characters, from 1.
fn span(window: &[&str], column: usize) -> Range<usize> {
    let (last, above) = window.split_last().map_or(("", &[][..]), |(last, above)| (*last, above));
    let before: usize = above.iter().map(|line| line.len() + 1).sum();
    let start = last.char_indices().nth(column.saturating_sub(1)).map_or(last.len(), |(at, _)| at);
    let rest = &last[start..];
    let quoted = rest.chars().next().filter(|c| ['"', '\''].contains(c));
    let end = match quoted {
        Some(quote) => rest[1..].find(quote).map_or(rest.len(), |at| at + 2),
        None => rest.find([' ', ',', ']', '}', ':']).unwrap_or(rest.len()),
    };
    // At least the one character, if there is any.
    let end = end.max(rest.chars().next().map_or(0, char::len_utf8));
    before + start..before + start + end
}

/// Without control characters, which a file's name may have and a terminal would obey.
pub fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::manifest::judge;

    const BROKEN: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    imagee: nginx:1\n";

    fn remarks(text: &str) -> Vec<Refusal> {
        judge(text.as_bytes(), Path::new("web.yaml"), "node").verdict.unwrap_err()
    }

    #[test]
    fn an_excerpt_shows_place_text_and_what_was_probably_meant() {
        let remarks = remarks(BROKEN);
        let shown = excerpt(BROKEN, &remarks[0], Severity::Error, false);
        let wanted = "error: spec.containers[0].imagee: unknown field
 --> web.yaml:8:5
  |
6 |   containers:
7 |   - name: c
8 |     imagee: nginx:1
  |     ^^^^^^ did you mean \"image\"?";
        assert_eq!(shown, wanted);
        let styled = excerpt(BROKEN, &remarks[0], Severity::Warning, true);
        assert!(styled.contains("\u{1b}[") && styled.contains("warning"), "{styled}");
    }

    #[test]
    fn what_the_text_holds_does_not_reach_the_terminal_as_a_command() {
        let text = BROKEN.replace("nginx:1", "\"\u{7f}x\" # \u{1b}[2J");
        let mut remark = remarks(BROKEN).remove(0);
        remark.file = PathBuf::from("a\u{1b}]0;b");
        let shown = excerpt(&text, &remark, Severity::Error, false);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7f}'), "{shown:?}");
    }

    #[test]
    fn any_place_can_be_shown() {
        let mut remark = remarks(BROKEN).remove(0);
        for (line, column) in [(1, 1), (8, 99), (99, 1), (4, 9), (9, 1)] {
            remark.at = crate::manifest::Position { line, column };
            for text in ["", "x", BROKEN, "ä: [ö, \"ü x\"]\n", "a\r\nb\r\n"] {
                let shown = excerpt(text, &remark, Severity::Error, false);
                assert!(shown.contains("web.yaml:"), "{shown}");
            }
        }
    }
}
