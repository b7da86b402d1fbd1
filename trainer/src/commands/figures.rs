use crate::verification::golden::{Figure, Row};

/// Prints figures side by side; `sides` are what the golden one and the other one are called.
pub fn print_rows<'a>(rows: impl IntoIterator<Item = &'a Row>, sides: [&str; 2]) {
    let [golden, got] = sides;
    println!(
        "  {:<42}{golden:>17}{got:>17}{:>12}{:>11}  verdict",
        "figure", "difference", "tolerance"
    );
    for row in rows {
        let difference = row
            .difference
            .map_or_else(String::new, |difference| format!("{difference:+.6}"));
        let tolerance = match &row.golden {
            Some(Figure::Measured { within, .. }) => within.to_string(),
            _ => "exact".into(),
        };
        println!(
            "  {:<42}{:>17}{:>17}{difference:>12}{tolerance:>11}  {}",
            row.figure,
            show(row.golden.as_ref()),
            show(row.got.as_ref()),
            if row.passed { "ok" } else { "FAILED" }
        );
    }
}

fn show(figure: Option<&Figure>) -> String {
    match figure {
        None => "none".to_owned(),
        Some(Figure::Exact(text)) if text.len() > 16 => format!("{}..", &text[..14]),
        Some(Figure::Exact(text)) => text.clone(),
        Some(Figure::Measured { value, .. }) => format!("{value:.6}"),
    }
}
