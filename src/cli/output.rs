//! Tables, JSON and YAML; ages and short ids as crictl prints them.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{Attribute, Cell, Color, Table};
use podstead_runtime::Time;
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// How to print what is no table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DataFormat {
    /// JSON.
    #[default]
    Json,
    /// YAML.
    Yaml,
}

impl From<DataFormat> for Format {
    fn from(format: DataFormat) -> Self {
        match format {
            DataFormat::Json => Self::Json,
            DataFormat::Yaml => Self::Yaml,
        }
    }
}

/// Prints data for machines.
pub fn data<T: Serialize>(format: Format, value: &T) -> anyhow::Result<()> {
    let text = match format {
        Format::Yaml => serde_yaml::to_string(value)?,
        _ => serde_json::to_string_pretty(value)? + "\n",
    };
    line(&text)
}

/// Prints text as it is. A reader that has gone away (a closed pipe) is no error.
pub fn line(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => Ok(outcome?),
    }
}

/// Whether colours and bars are welcome there: a terminal, and no `NO_COLOR`.
pub fn fancy(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Prints a table with a heading.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    let fancy = fancy(&std::io::stdout());
    let head_cell = |text: &&str| {
        let cell = Cell::new(text);
        if fancy { cell.add_attribute(Attribute::Bold) } else { cell }
    };
    table.set_header(head.iter().map(head_cell));
    for row in rows {
        table.add_row(row.into_iter().map(|text| coloured(text, fancy)));
    }
    let text: Vec<String> =
        table.lines().map(|l| l.trim_end().trim_start_matches(' ').to_owned() + "\n").collect();
    line(&text.concat())
}

fn coloured(text: String, fancy: bool) -> Cell {
    let colour = match text.as_str() {
        "Running" | "Ready" | "Accepted" => Some(Color::Green),
        "Exited" | "NotReady" | "Pending" | "Created" | "Settling" => Some(Color::Yellow),
        "CrashLoopBackOff" | "Failed" | "Unknown" | "Error" | "Refused" | "KeptLastGood" | "Duplicate" => {
            Some(Color::Red)
        }
        _ => None,
    };
    match colour.filter(|_| fancy) {
        Some(colour) => Cell::new(text).fg(colour),
        None => Cell::new(text),
    }
}

/// The first 13 characters of an id, as crictl shows them.
pub fn short(id: &str) -> String {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.chars().take(13).collect()
}

/// `5 seconds ago`, `About an hour ago` in crictl's manner.
pub fn ago(then: Time, now: Time) -> String {
    let Some(then) = then.known() else { return "never".to_owned() };
    let seconds = now.since(then).as_secs();
    let say = |n: u64, unit: &str| format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" });
    match seconds {
        0 => "Less than a second ago".to_owned(),
        1..60 => say(seconds, "second"),
        60..120 => "About a minute ago".to_owned(),
        120..3600 => say(seconds / 60, "minute"),
        3600..7200 => "About an hour ago".to_owned(),
        7200..172_800 => say(seconds / 3600, "hour"),
        _ => say(seconds / 86_400, "day"),
    }
}

/// `5s`, `3m`, `2h`, `4d` as kubectl's AGE column has it.
pub fn age(then: Time, now: Time) -> String {
    match now.since(then).as_secs() {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// `1.5MB` as crictl prints sizes (decimal units).
pub fn size(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    #[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes}B")
    } else {
        format!("{value:.3}").chars().take(4).collect::<String>().trim_end_matches('.').to_owned()
            + units[unit]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        let now = Time::from_secs(1_000_000);
        assert_eq!(ago(Time::from_secs(999_999), now), "1 second ago");
        assert_eq!(ago(Time::from_secs(999_900), now), "About a minute ago");
        assert_eq!(ago(Time::from_secs(990_000), now), "2 hours ago");
        assert_eq!(age(Time::from_secs(999_000), now), "16m");
        for (seconds, long, short) in [
            (0, "Less than a second ago", "0s"),
            (59, "59 seconds ago", "59s"),
            (119, "About a minute ago", "119s"),
            (120, "2 minutes ago", "2m"),
            (3600, "About an hour ago", "60m"),
            (7200, "2 hours ago", "2h"),
            (172_800, "2 days ago", "2d"),
        ] {
            let then = Time::from_secs(1_000_000 - seconds);
            assert_eq!((ago(then, now).as_str(), age(then, now).as_str()), (long, short));
        }
        assert_eq!(ago(Time(0), now), "never");
        assert_eq!(ago(Time::from_secs(1_000_001), now), "Less than a second ago", "the clock was set back");
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(size(999), "999B");
        assert_eq!(size(1_234_567), "1.23MB");
        assert_eq!(size(123_456_789), "123MB");
        assert_eq!((size(0), size(1000), size(u64::MAX)), ("0B".into(), "1.00kB".into(), "18.4EB".into()));
    }

    #[test]
    fn ids_are_cut_as_crictl_cuts_them() {
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789abc");
    }
}
