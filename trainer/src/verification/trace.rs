//! Golden traces: at which moment a run parted from the golden one.

/// A line of a trace: what it is of, and its checksum.
type Line<'a> = (&'a str, &'a str);

fn lines(trace: &str) -> Vec<Line<'_>> {
    trace.lines().filter_map(|line| line.rsplit_once(": ")).collect()
}

/// Where a trace first differs from the golden one, as a sentence; `None` if they are the same.
pub fn first_difference(golden: &str, got: &str) -> Option<String> {
    let (golden, got) = (lines(golden), lines(got));
    let place = (0..golden.len().max(got.len())).find(|&place| golden.get(place) != got.get(place))?;
    match (golden.get(place), got.get(place)) {
        (Some((what, _)), Some((same, _))) if what == same => Some(parting(what, &golden[..place])),
        (Some((what, _)), Some((other, _))) => {
            Some(format!("the golden run has '{what}' where this one has '{other}'"))
        }
        (Some((what, _)), None) => Some(format!("this run has no '{what}'")),
        (None, Some((other, _))) => Some(format!("the golden run has no '{other}'")),
        (None, None) => None,
    }
}

/// Between which moments runs parted that differ in `what` and not in what is before it.
fn parting(what: &str, before: &[Line]) -> String {
    let Some((whose, moment)) = what.rsplit_once(", ") else {
        return format!("{what} differs");
    };
    let last = before.iter().rev().find_map(|(what, _)| {
        let (same, moment) = what.rsplit_once(", ")?;
        (same == whose).then_some(moment)
    });
    match (last, moment) {
        (Some(last), moment) if moment.starts_with("step ") => format!("{whose}, differs between {last} and {moment}"),
        (None, moment) if moment.starts_with("step ") => format!("{whose}, differs between its start and {moment}"),
        (_, "sent") => format!("{whose}, differs in what it sent, and not in what it had trained"),
        (_, "received") => format!("{whose}, differs in what it received: in how the server combined the updates"),
        _ => format!("{what} differs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "round 1, client A, step 1: 11\nround 1, client A, step 10: 12\nround 1, client A, sent: 13\n\
                          round 1, client F: x, step 1: 21\nround 1, client A, received: 31\nadapter.safetensors: 41\n";

    #[test]
    fn the_first_line_that_differs_is_named() {
        let changed = |from: &str, to: &str| first_difference(GOLDEN, &GOLDEN.replace(from, to)).unwrap();
        assert_eq!(first_difference(GOLDEN, GOLDEN), None);
        assert_eq!(
            changed(": 12", ": 99"),
            "round 1, client A, differs between step 1 and step 10"
        );
        assert_eq!(
            changed(": 11", ": 99"),
            "round 1, client A, differs between its start and step 1"
        );
        assert_eq!(
            changed(": 21", ": 99"),
            "round 1, client F: x, differs between its start and step 1"
        );
        assert!(changed(": 13", ": 99").contains("in what it sent"));
        assert!(changed(": 31", ": 99").contains("how the server combined"));
        assert_eq!(changed(": 41", ": 99"), "adapter.safetensors differs");
        assert!(changed("adapter.safetensors: 41\n", "").contains("this run has no 'adapter.safetensors'"));
        assert!(changed("step 10", "step 7").contains("where this one has"));
    }
}
