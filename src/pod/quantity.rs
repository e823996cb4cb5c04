//! Kubernetes quantities (`250m`, `64Mi`, `1e3`). Pure.

use thiserror::Error;

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not a quantity (examples: 250m, 1.5, 64Mi, 1G)")]
pub struct BadQuantity {
    /// The text.
    pub text: String,
}

/// A quantity in billionths of its unit, saturating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(pub i128);

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// Reads a quantity as the API does: decimal number with a decimal or binary suffix or an exponent.
    pub fn parse(text: &str) -> Result<Self, BadQuantity> {
        Self::read(text).ok_or_else(|| BadQuantity { text: text.to_owned() })
    }

    fn read(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(digits);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return None;
        }
        let (factor, divisor) = scale(suffix)?;
        let mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let shift = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let numerator = mantissa.saturating_mul(factor).saturating_mul(NANO);
        let denominator = shift.saturating_mul(divisor);
        // Rounded up, away from zero, as the API rounds what is finer than it can hold.
        let value = numerator / denominator + i128::from(numerator % denominator != 0);
        Some(Self(if negative { -value } else { value }))
    }

    /// Whole units, rounded up.
    pub fn ceil(self) -> i64 {
        clamp((self.0 + NANO - 1).div_euclid(NANO))
    }

    /// Thousandths, rounded up.
    pub fn milli(self) -> i64 {
        clamp((self.0 + 999_999).div_euclid(1_000_000))
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Factor and divisor of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| Some((base.checked_pow(exponent)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, NANO)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let size = 10_i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
            Some(if exponent < 0 { (1, size) } else { (size, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nano(text: &str) -> i128 {
        Quantity::parse(text).unwrap().0
    }

    #[test]
    fn suffixes_mean_what_the_api_says() {
        assert_eq!(nano("1"), NANO);
        assert_eq!(nano("250m"), NANO / 4);
        assert_eq!(nano(".5"), NANO / 2);
        assert_eq!(Quantity::parse("64Mi").unwrap().ceil(), 64 << 20);
        assert_eq!(Quantity::parse("1.5Gi").unwrap().ceil(), 3 << 29);
        assert_eq!(Quantity::parse("1e3").unwrap().ceil(), 1000);
        assert_eq!(Quantity::parse("12E").unwrap().ceil(), i64::MAX);
    }

    #[test]
    fn finer_than_the_unit_is_rounded_up() {
        assert_eq!(Quantity::parse("1m").unwrap().ceil(), 1);
        assert_eq!(Quantity::parse("1u").unwrap().milli(), 1);
        assert_eq!(Quantity::parse("0").unwrap().milli(), 0);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "-", "Mi", "1.2.3", "1Q", "one", "1 Gi", "1e", "1e99", "1mi"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }
}
