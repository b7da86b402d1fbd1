/// Dice of a class: twice the overlap over the sum of the sizes; both empty is 1, one empty 0.
pub fn dice(got: &[u8], want: &[u8], class: u8) -> f64 {
    let (mut overlap, mut sizes) = (0u64, 0u64);
    for (&got, &want) in got.iter().zip(want) {
        overlap += u64::from(got == class && want == class);
        sizes += u64::from(got == class) + u64::from(want == class);
    }
    match sizes {
        0 => 1.0,
        _ => 2.0 * overlap as f64 / sizes as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dice_of_empty_and_full() {
        assert_eq!(dice(&[0, 0], &[0, 0], 1), 1.0);
        assert_eq!(dice(&[1, 0], &[0, 0], 1), 0.0);
        assert_eq!(dice(&[0, 0], &[1, 0], 1), 0.0);
        assert_eq!(dice(&[1, 1, 2], &[1, 0, 2], 1), 2.0 / 3.0);
    }
}
