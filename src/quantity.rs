//! Kubernetes quantities (`500m`, `64Mi`, `1e3`) as exact numbers. Pure.

use std::str::FromStr;

/// An exact amount, in thousand-millionths (10^-9) of the unit: bytes for memory, cores for CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(i128);

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the form number and suffix.
    #[error("\"{0}\" is not a quantity; write a number with an optional suffix such as 500m, 2, 64Mi or 1G")]
    Form(String),
    /// Larger than 2^63-1 units.
    #[error("\"{0}\" is too large a quantity")]
    Range(String),
}

const NANO: i128 = 1_000_000_000;

impl Amount {
    /// Whole units, rounded up as Kubernetes does.
    pub fn units(self) -> i128 {
        self.0.div_euclid(NANO) + i128::from(self.0.rem_euclid(NANO) != 0)
    }

    /// Thousandths of the unit (milli-CPU), rounded up as Kubernetes does.
    pub fn milli(self) -> i128 {
        const MICRO: i128 = NANO / 1000;
        self.0.div_euclid(MICRO) + i128::from(self.0.rem_euclid(MICRO) != 0)
    }

    /// [`units`](Self::units) in the kernel's width, at most its largest number.
    pub fn whole(self) -> i64 {
        clamp(self.units())
    }

    /// [`milli`](Self::milli) likewise.
    pub fn thousandths(self) -> i64 {
        clamp(self.milli())
    }

    /// The exact amount in 10^-9 units.
    pub fn nano(self) -> i128 {
        self.0
    }
}

impl FromStr for Amount {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let form = || QuantityError::Form(shorten(text));
        let range = || QuantityError::Range(shorten(text));
        let (negative, body) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.contains('.') || (whole.is_empty() && part.is_empty()) {
            return Err(form());
        }
        let (base, power) = scale(suffix).ok_or_else(form)?;
        // The value is digits * base^power / 10^part; everything beyond 10^-9 is rounded up.
        if whole.trim_start_matches('0').len() > 19 || part.len() > 60 {
            return Err(range());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| range())? };
        let factor = base.checked_pow(power.unsigned_abs()).ok_or_else(range)?;
        let (up, down) = if power < 0 { (1, factor) } else { (factor, 1) };
        let kept = &part[..part.len().min(15)];
        let fraction: i128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| form())? };
        let decimals = 10_i128.pow(u32::try_from(kept.len()).map_err(|_| range())?);
        let scaled_whole = whole.checked_mul(NANO).and_then(|v| v.checked_mul(up)).ok_or_else(range)?;
        let scaled_part = fraction.checked_mul(NANO).and_then(|v| v.checked_mul(up)).ok_or_else(range)?;
        let more = part[kept.len()..].bytes().any(|b| b != b'0');
        let value =
            ceil(scaled_whole, down) + ceil(scaled_part, decimals * down) + i128::from(more && up == 1);
        if value > i128::from(i64::MAX) * NANO {
            return Err(range());
        }
        Ok(Self(if negative { -value } else { value }))
    }
}

/// Suffixes of 1024, as Kubernetes writes them.
pub const BINARY: &[&str] = &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// A number in the largest of these units of 1024 that it is whole in: `2Mi`, `1Gi`, `100`.
pub fn whole_in(mut number: i64, units: &[&str]) -> String {
    let mut units = units.iter();
    let mut unit = units.next().copied().unwrap_or_default();
    while number != 0 && number % 1024 == 0 {
        let Some(next) = units.next() else { break };
        (number, unit) = (number / 1024, next);
    }
    format!("{number}{unit}")
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn ceil(value: i128, by: i128) -> i128 {
    value / by + i128::from(value % by != 0)
}

/// Base and power of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let power: i32 = exponent.parse().ok()?;
            (-18..=18).contains(&power).then_some((10, power))?
        }
    })
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        for (text, nano) in [
            ("0", 0),
            ("1", NANO),
            ("500m", NANO / 2),
            ("0.5", NANO / 2),
            (".5", NANO / 2),
            ("5.", 5 * NANO),
            ("+2", 2 * NANO),
            ("-1", -NANO),
            ("64Mi", 64 * 1024 * 1024 * NANO),
            ("1.5Gi", 1536 * 1024 * 1024 * NANO),
            ("1e3", 1000 * NANO),
            ("1E", 1_000_000_000_000_000_000 * NANO),
            ("1E3", 1000 * NANO),
            ("1e-3", NANO / 1000),
            ("100n", 100),
            ("0.1n", 1),
        ] {
            assert_eq!(text.parse::<Amount>().map(Amount::nano), Ok(nano), "{text}");
        }
        assert_eq!("100m".parse::<Amount>().unwrap().units(), 1);
        assert_eq!("0.0001".parse::<Amount>().unwrap().milli(), 1);
        assert_eq!("9E".parse::<Amount>().map(Amount::whole), Ok(9_000_000_000_000_000_000));
        assert_eq!("9E".parse::<Amount>().map(Amount::thousandths), Ok(i64::MAX));
        assert_eq!(
            ("1u".parse::<Amount>().unwrap().thousandths(), "1m".parse::<Amount>().unwrap().whole()),
            (1, 1)
        );
        assert!("1Gi".parse::<Amount>().unwrap() > "1G".parse::<Amount>().unwrap());
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "m",
            "1.2.3",
            "64MB",
            "64mb",
            "1e",
            "1e99",
            "1Q",
            "one",
            "1mi",
            "-",
            "--1",
            "1 Gi",
            "½",
            "99999999999E",
            "9".repeat(300).as_str(),
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }
}
