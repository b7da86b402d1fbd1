//! Figures as the page writes them.

const MINUS: &str = "\u{2212}";

/// A Dice or another share.
pub fn dice(value: f64) -> String {
    format!("{value:.3}").replace('-', MINUS)
}

/// A difference of shares, with its sign.
pub fn signed(value: f64) -> String {
    match format!("{value:+.3}").as_str() {
        "+0.000" | "-0.000" => "0.000".into(),
        text => text.replace('-', MINUS),
    }
}

/// A share that may be very small.
pub fn small(value: f64) -> String {
    match value {
        _ if value > 0.0 && value < 0.001 => "< 0.001".into(),
        _ => dice(value),
    }
}

/// A distance in mm.
pub fn millimetres(value: f64) -> String {
    format!("{value:.1}")
}

/// So many times.
pub fn times(value: f64) -> String {
    let decimals = if value < 100.0 { 1 } else { 0 };
    format!("{value:.decimals$}")
}

/// A number of things; the plural has an s.
pub fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A number in groups of three digits.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// A duration in the two largest units that it has.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, _) => format!("{seconds:.1} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// Names one after the other: `a`, `a and b`, `a, b and c`.
pub fn joined(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [0.0214, -0.0214, -0.0002].map(signed),
            ["+0.021", "\u{2212}0.021", "0.000"]
        );
        assert_eq!([0.0, 1e-7, 0.3271].map(small), ["0.000", "< 0.001", "0.327"]);
        assert_eq!([12.84, 189.27].map(times), ["12.8", "189"]);
        assert_eq!([7, 54_460, 140_027_328].map(grouped), ["7", "54,460", "140,027,328"]);
        assert_eq!(
            [2.34, 99.6, 3725.0].map(duration),
            ["2.3 s", "1 min 40 s", "1 h 02 min"]
        );
        assert_eq!([joined(&["a"]), joined(&["a", "b", "c"])], ["a", "a, b and c"]);
    }
}
