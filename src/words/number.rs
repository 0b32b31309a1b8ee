//! Numbers as Java prints them.

/// `Double#toString`: plain from 10^-3 to 10^7, else with an exponent; always a digit after the point.
pub fn java_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity".into() } else { "-Infinity".into() };
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    if text.contains('.') { text } else { text.replacen('E', ".0E", 1) }
}

/// At most four decimals, as averages are printed. Source: ZooKeeper `AvgMinMaxCounter#getAvg`.
pub fn average(value: f64) -> String {
    java_double(four_decimals(value))
}

pub fn four_decimals(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_look_as_java_prints_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (2.25, "2.25"),
            (1.0, "1.0"),
            (-3.5, "-3.5"),
            (9_999_999.0, "9999999.0"),
            (17_297_301.0, "1.7297301E7"),
            (1e7, "1.0E7"),
            (0.001, "0.001"),
            (0.0005, "5.0E-4"),
            (123_456_789_012.0, "1.23456789012E11"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
        ] {
            assert_eq!(java_double(value), text);
        }
    }

    #[test]
    fn averages_have_at_most_four_decimals() {
        for (value, text) in
            [(0.0, "0.0"), (2.25, "2.25"), (1.0 / 3.0, "0.3333"), (2.0 / 3.0, "0.6667"), (12.0, "12.0")]
        {
            assert_eq!(average(value), text);
        }
    }
}
