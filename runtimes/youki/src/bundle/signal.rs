//! Names and numbers of stop signals. Pure.

use podstead_runtime::ContainerSpec;

use super::error::{Blame, Error};
use crate::image::ImageConfig;

const SIGTERM: i32 = 15;
/// The first realtime signal a C library leaves to programs; the one images mean by `SIGRTMIN`.
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// By number from 1, as on every architecture this runtime is for.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The signal that asks this container to stop: the spec's, the image's, or SIGTERM.
///
/// An image's signal nobody knows is taken for SIGTERM, as the image cannot be changed by who runs it.
pub fn stop_signal(container: &ContainerSpec, image: &ImageConfig) -> Result<i32, Error> {
    if !container.stop_signal.is_empty() {
        return parse(&container.stop_signal).ok_or_else(|| {
            Blame(&container.name).invalid(
                format!("stop signal \"{}\"", container.stop_signal),
                "no signal has this name or number",
            )
        });
    }
    Ok(image.stop_signal.as_deref().and_then(parse).unwrap_or(SIGTERM))
}

fn parse(text: &str) -> Option<i32> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().filter(|n| (1..=SIGRTMAX).contains(n));
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest
            .strip_prefix(sign)
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse::<i32>().ok()),
    };
    let realtime = |n: i32| (SIGRTMIN..=SIGRTMAX).contains(&n).then_some(n);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(SIGRTMIN.checked_add(offset(rest, '+')?)?);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(SIGRTMAX.checked_sub(offset(rest, '-')?)?);
    }
    let alias = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    NAMES.iter().zip(1..).find(|(known, _)| **known == alias).map(|(_, number)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(spec: &str, image: Option<&str>) -> Result<i32, Error> {
        let container =
            ContainerSpec { name: "c".into(), stop_signal: spec.into(), ..ContainerSpec::default() };
        stop_signal(&container, &ImageConfig { stop_signal: image.map(Into::into), ..ImageConfig::default() })
    }

    #[test]
    fn names_with_and_without_prefix_and_numbers_are_the_same() {
        for text in ["SIGTERM", "TERM", "term", "15"] {
            assert_eq!(signal(text, None).unwrap(), 15, "{text}");
        }
        assert_eq!(signal("SIGSYS", None).unwrap(), libc::SIGSYS);
        assert_eq!(signal("WINCH", None).unwrap(), libc::SIGWINCH);
        assert_eq!(signal("USR1", None).unwrap(), libc::SIGUSR1);
    }

    #[test]
    fn realtime_signals_count_from_either_end() {
        assert_eq!(signal("SIGRTMIN+3", None).unwrap(), 37);
        assert_eq!(signal("RTMIN", None).unwrap(), 34);
        assert_eq!(signal("SIGRTMAX-14", None).unwrap(), 50);
        assert_eq!(signal("RTMAX", None).unwrap(), 64);
    }

    #[test]
    fn the_pod_comes_before_the_image_and_both_before_the_default() {
        assert_eq!(signal("", None).unwrap(), 15);
        assert_eq!(signal("", Some("SIGQUIT")).unwrap(), 3);
        assert_eq!(signal("INT", Some("SIGQUIT")).unwrap(), 2);
        assert_eq!(signal("", Some("what")).unwrap(), 15, "an image's nonsense");
    }

    #[test]
    fn nonsense_in_the_pod_is_an_error() {
        for text in [
            "0",
            "65",
            "SIG",
            "SIGRTMIN+31",
            "RTMIN+",
            "RTMIN-1",
            "RTMIN++1",
            "RTMAX-99",
            "-9",
            "SIGSIGTERM",
            "99999999999",
        ] {
            assert!(signal(text, None).is_err(), "{text}");
        }
    }
}
