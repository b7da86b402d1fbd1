//! Traces: at which moment a run parted from the golden one, or from another.

/// A line of a trace: what it is of, and its checksum.
type Line<'a> = (&'a str, &'a str);

fn lines(trace: &str) -> Vec<Line<'_>> {
    trace.lines().filter_map(|line| line.rsplit_once(": ")).collect()
}

/// What the golden run and the one that is held against it are called.
pub const GOLDEN_AND_THIS: [&str; 2] = ["the golden run", "this run"];

/// Where two traces first differ, as a sentence that calls the runs by `names`; `None` if they are the same.
pub fn first_difference(first: &str, second: &str, names: [&str; 2]) -> Option<String> {
    let (first, second) = (lines(first), lines(second));
    let [one, other] = names;
    let place = (0..first.len().max(second.len())).find(|&place| first.get(place) != second.get(place))?;
    match (first.get(place), second.get(place)) {
        (Some((what, _)), Some((same, _))) if what == same => Some(parting(what, &first[..place])),
        (Some((what, _)), Some((instead, _))) => Some(format!("{one} has '{what}' where {other} has '{instead}'")),
        (Some((what, _)), None) => Some(format!("{other} has no '{what}'")),
        (None, Some((what, _))) => Some(format!("{one} has no '{what}'")),
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
        let changed =
            |from: &str, to: &str| first_difference(GOLDEN, &GOLDEN.replace(from, to), GOLDEN_AND_THIS).unwrap();
        assert_eq!(first_difference(GOLDEN, GOLDEN, GOLDEN_AND_THIS), None);
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
        assert!(changed("step 10", "step 7").contains("where this run has"));
    }
}
