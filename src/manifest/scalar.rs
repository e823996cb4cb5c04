//! What a plain (unquoted) YAML scalar means: null, boolean, number or text. Pure.
//!
//! The kubelet's YAML reader follows YAML 1.1, so `yes`, `on` and `0644` are a boolean, a boolean and 420.
//! The same rules stand here, or one manifest would mean two things on two agents.

/// A resolved scalar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    /// A number that is no 64-bit integer, in its written form.
    Float(String),
    Str(String),
}

/// Resolves a plain scalar.
pub(crate) fn resolve(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        _ => number(text).unwrap_or_else(|| Scalar::Str(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Scalar> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || matches!(first, '+' | '-' | '.')) {
        return None;
    }
    if let Some(int) = integer(text) {
        return Some(Scalar::Int(int));
    }
    is_float(text).then(|| Scalar::Float(text.to_owned()))
}

/// Decimal, `0x`, `0o`, `0b` and the old octal form with a leading zero; underscores may part the digits.
fn integer(text: &str) -> Option<i64> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // The standard parser would take one more sign here.
    if !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

/// `[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?`, and the forms ending in a dot.
fn is_float(text: &str) -> bool {
    let body = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |s: &str| s.chars().all(|c| c.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_the_kubelet_reads() {
        for (text, want) in [
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("yes", Scalar::Bool(true)),
            ("off", Scalar::Bool(false)),
            ("N", Scalar::Bool(false)),
            ("8080", Scalar::Int(8080)),
            ("-7", Scalar::Int(-7)),
            ("0644", Scalar::Int(420)),
            ("0o17", Scalar::Int(15)),
            ("0x1F", Scalar::Int(31)),
            ("1_000", Scalar::Int(1000)),
            ("0", Scalar::Int(0)),
            ("0.5", Scalar::Float("0.5".into())),
            ("1e9", Scalar::Float("1e9".into())),
            ("1.", Scalar::Float("1.".into())),
            ("9223372036854775808", Scalar::Float("9223372036854775808".into())),
            ("--5", Scalar::Str("--5".into())),
            ("+-5", Scalar::Str("+-5".into())),
            ("0x-5", Scalar::Str("0x-5".into())),
            ("1.2.3", Scalar::Str("1.2.3".into())),
            ("100m", Scalar::Str("100m".into())),
            (".", Scalar::Str(".".into())),
            ("-", Scalar::Str("-".into())),
            ("0o", Scalar::Str("0o".into())),
            ("2024-01-01", Scalar::Str("2024-01-01".into())),
        ] {
            assert_eq!(resolve(text), want, "{text:?}");
        }
    }
}
