//! Where a scan lies: what its header says of it, and whether that can be.

use crate::Error;

/// Rows of a matrix from voxel indices to millimetres, in right-anterior-superior directions.
pub type Affine = [[f64; 4]; 3];

/// Nothing in a patient is nearer or farther than that, mm: a voxel of a nanometre, a table of a kilometre.
const NEAREST: f64 = 1e-6;
const FARTHEST: f64 = 1e6;
/// Axes that enclose less than this share of the box of their lengths lie in one plane, as far as a header's precision goes.
const FLAT: f64 = 1e-6;
/// Cosine of two axes beyond which they are not at right angles: a fifteenth of a degree.
const SKEW: f64 = 1e-3;

/// What a header says about space, in its own unit of length.
pub(super) struct Space {
    /// `pixdim`: the handedness of the quaternion, then three distances.
    pub spacing: [f64; 4],
    /// Quaternion (b, c, d) and offset.
    pub qform: Option<([f64; 3], [f64; 3])>,
    pub sform: Option<Affine>,
    /// How far rounding carries the squares of the quaternion's parts: three units of the header's own precision.
    pub quaternion_rounding: f64,
    /// A unit of length, mm.
    pub unit: f64,
}

/// The code of a form that the standard defines; others say that there is none, as nibabel takes them.
pub(super) fn is_set(code: i16) -> bool {
    (1..=5).contains(&code)
}

/// A unit of length by the header's `xyzt_units`, mm. One that is unknown is a millimetre.
pub(super) fn unit(code: u8) -> f64 {
    match code & 7 {
        1 => 1000.0,
        3 => 0.001,
        _ => 1.0,
    }
}

impl Space {
    /// The affine by the standard's order of preference: sform, qform, or, with neither, the bare spacing around the
    /// centre. A form that no scan can have gives way to the other one.
    ///
    /// # Errors
    /// No form that is set can be.
    pub(super) fn affine(&self, dims: &[u64]) -> Result<Affine, Error> {
        let sform = self.sform.map(|rows| ("its sform (srow_x, srow_y, srow_z)", rows));
        let qform = self
            .turned()
            .map(|rows| ("its qform (quatern_b to qoffset_z, and pixdim)", rows));
        let mut forms: Vec<(&str, Affine)> = sform.into_iter().chain(qform).collect();
        if forms.is_empty() {
            forms.push(("its voxel size (pixdim)", self.centred(dims)));
        }
        let mut flaws = Vec::new();
        for (field, rows) in forms {
            let rows = rows.map(|row| row.map(|value| value * self.unit));
            match flaw(&rows) {
                None => return Ok(rows),
                Some(flaw) => flaws.push(format!("{field} {flaw}")),
            }
        }
        let why = format!(
            "{}; write the scan's affine into the header anew (with nibabel: image.set_sform(affine)), or export the scan \
             again",
            flaws.join(", and ")
        );
        Err(Error::format("the NIfTI header", why))
    }

    /// Distances as nibabel takes them: without their sign, and 1 for 0.
    fn distances(&self) -> [f64; 3] {
        [1, 2, 3].map(|axis| match self.spacing[axis].abs() {
            0.0 => 1.0,
            distance => distance,
        })
    }

    /// The qform's rows.
    fn turned(&self) -> Option<Affine> {
        let ([b, c, d], offset) = self.qform?;
        let [x, y, z] = self.distances();
        // Rounded to the header's precision, a half turn leaves a little more or less than nothing for the real part.
        let rest = 1.0 - (b * b + c * c + d * d);
        let a = match rest.abs() < self.quaternion_rounding {
            true => 0.0,
            false => rest.max(0.0).sqrt(),
        };
        let z = if self.spacing[0] == -1.0 { -z } else { z };
        let twice = 2.0 / (a * a + b * b + c * c + d * d);
        let rotation = [
            [
                1.0 - twice * (c * c + d * d),
                twice * (b * c - a * d),
                twice * (b * d + a * c),
            ],
            [
                twice * (b * c + a * d),
                1.0 - twice * (b * b + d * d),
                twice * (c * d - a * b),
            ],
            [
                twice * (b * d - a * c),
                twice * (c * d + a * b),
                1.0 - twice * (b * b + c * c),
            ],
        ];
        Some([0, 1, 2].map(|row| {
            let [i, j, k] = rotation[row];
            [i * x, j * y, k * z, offset[row]]
        }))
    }

    /// Without any form the standard's tools take the first axis to run to the left, and axes that the file does not have
    /// to be of one unit.
    fn centred(&self, dims: &[u64]) -> Affine {
        let distances = self.distances();
        let [x, y, z] = [0, 1, 2].map(|axis| if axis < dims.len() { distances[axis] } else { 1.0 });
        let centre = |axis: usize, step: f64| -step * (dims.get(axis).map_or(0.0, |&dim| dim as f64 - 1.0)) / 2.0;
        [
            [-x, 0.0, 0.0, centre(0, -x)],
            [0.0, y, 0.0, centre(1, y)],
            [0.0, 0.0, z, centre(2, z)],
        ]
    }
}

/// Why no scan can lie so; `None` if it can.
fn flaw(affine: &Affine) -> Option<&'static str> {
    let lengths = [0, 1, 2].map(|axis| column_length(affine, axis));
    let box_of_lengths: f64 = lengths.iter().product();
    if affine.as_flattened().iter().any(|value| !value.is_finite()) {
        Some("holds values that are no finite numbers")
    } else if affine.as_flattened().iter().any(|value| value.abs() > FARTHEST) {
        Some("holds distances of more than a kilometre")
    } else if lengths.iter().any(|&length| length < NEAREST) {
        Some("has an axis of no length")
    } else if volume(affine) < FLAT * box_of_lengths {
        Some("has axes that lie in one plane")
    } else {
        None
    }
}

/// What the affine's three axes enclose: the volume of a voxel, mm³.
pub(super) fn volume(affine: &Affine) -> f64 {
    let [[a, b, c, _], [d, e, f, _], [g, h, i, _]] = *affine;
    (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)).abs()
}

/// What two of the axes enclose, mm²: the length of their vector product.
pub(super) fn area(affine: &Affine, [one, other]: [usize; 2]) -> f64 {
    let part = |row: usize| {
        let (next, last) = (affine[(row + 1) % 3], affine[(row + 2) % 3]);
        next[one] * last[other] - last[one] * next[other]
    };
    (0..3).map(|row| part(row).powi(2)).sum::<f64>().sqrt()
}

/// Whether each axis is at right angles to the others.
pub(super) fn has_right_angles(affine: &Affine) -> bool {
    let cosine = |one: usize, other: usize| {
        let product: f64 = affine.iter().map(|row| row[one] * row[other]).sum();
        product / (column_length(affine, one) * column_length(affine, other))
    };
    [(0, 1), (0, 2), (1, 2)]
        .into_iter()
        .all(|(one, other)| cosine(one, other).abs() < SKEW)
}

/// Voxel indices, with what lies between them, of a place in millimetres.
pub(super) fn inverse(affine: &Affine, mm: [f64; 3]) -> [f64; 3] {
    let [[a, b, c, x], [d, e, f, y], [g, h, i, z]] = *affine;
    let [x, y, z] = [mm[0] - x, mm[1] - y, mm[2] - z];
    let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    [
        (e * i - f * h) * x + (c * h - b * i) * y + (b * f - c * e) * z,
        (f * g - d * i) * x + (a * i - c * g) * y + (c * d - a * f) * z,
        (d * h - e * g) * x + (b * g - a * h) * y + (a * e - b * d) * z,
    ]
    .map(|value| value / determinant)
}

/// The axes' directions without what they lean over: the rotation, perhaps with a mirroring, that is nearest to them. Axes
/// that lie in one plane stay as they are.
pub(super) fn directions(affine: &Affine) -> [[f64; 3]; 3] {
    let lengths = [0, 1, 2].map(|axis| column_length(affine, axis));
    let mut turn = affine.map(|row| {
        [0, 1, 2].map(|axis| match lengths[axis] > 0.0 {
            true => row[axis] / lengths[axis],
            false => 0.0,
        })
    });
    // Newton's way to the orthogonal factor: the mean of a matrix and of its inverse's transpose, again and again.
    for _ in 0..ROUNDS {
        let Some(other) = inverse_transposed(&turn) else {
            return turn;
        };
        for (row, other) in turn.iter_mut().zip(other) {
            for (value, other) in row.iter_mut().zip(other) {
                *value = (*value + other) / 2.0;
            }
        }
    }
    turn
}

/// It squares the error each time, from less than 1e6.
const ROUNDS: usize = 30;

/// `None` for rows that lie in one plane.
fn inverse_transposed(matrix: &[[f64; 3]; 3]) -> Option<[[f64; 3]; 3]> {
    let cofactor = |row: usize, column: usize| {
        let ([i, j], [k, l]) = ([(row + 1) % 3, (row + 2) % 3], [(column + 1) % 3, (column + 2) % 3]);
        matrix[i][k] * matrix[j][l] - matrix[i][l] * matrix[j][k]
    };
    let determinant: f64 = (0..3).map(|column| matrix[0][column] * cofactor(0, column)).sum();
    let is_flat = determinant.is_nan() || determinant.abs() < FLAT;
    (!is_flat).then(|| [0, 1, 2].map(|row| [0, 1, 2].map(|column| cofactor(row, column) / determinant)))
}

/// Distance between neighbours along a voxel axis, mm.
pub(super) fn column_length(affine: &Affine, axis: usize) -> f64 {
    affine.iter().map(|row| row[axis] * row[axis]).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A millimetre a voxel, from a corner.
    const ROWS: Affine = [[1.0, 0.0, 0.0, 5.0], [0.0, 1.0, 0.0, 6.0], [0.0, 0.0, 1.0, 7.0]];

    fn space() -> Space {
        Space {
            spacing: [1.0, 2.0, 3.0, 4.0],
            qform: Some(([0.0; 3], [5.0, 6.0, 7.0])),
            sform: Some(ROWS),
            quaternion_rounding: 3.0 * f32::EPSILON as f64,
            unit: 1.0,
        }
    }

    #[test]
    fn a_form_that_cannot_be_gives_way() {
        let turned = [[2.0, 0.0, 0.0, 5.0], [0.0, 3.0, 0.0, 6.0], [0.0, 0.0, 4.0, 7.0]];
        let with = |place: (usize, usize), value: f64| {
            let mut rows = ROWS;
            rows[place.0][place.1] = value;
            rows
        };
        let broken = [
            [[0.0; 4]; 3],
            with((0, 0), f64::NAN),
            with((1, 3), f64::INFINITY),
            with((2, 2), 1e30),
            with((2, 2), 0.0),
            // Two axes along one line.
            [[1.0, 1.0, 0.0, 5.0], [0.0, 0.0, 0.0, 6.0], [0.0, 0.0, 1.0, 7.0]],
        ];
        assert_eq!(space().affine(&[2, 2, 2]).unwrap(), ROWS);
        for rows in broken {
            let mut space = space();
            space.sform = Some(rows);
            assert_eq!(space.affine(&[2, 2, 2]).unwrap(), turned, "{rows:?}");
            space.qform = None;
            let refused = space.affine(&[2, 2, 2]).unwrap_err().to_string();
            assert!(refused.contains("srow_x") && refused.contains("set_sform"), "{refused}");
            space.qform = Some(([f64::NAN, 0.0, 0.0], [0.0; 3]));
            let refused = space.affine(&[2, 2, 2]).unwrap_err().to_string();
            assert!(refused.contains("srow_x") && refused.contains("quatern_b"), "{refused}");
        }
    }

    #[test]
    fn distances_have_no_sign_and_are_not_zero() {
        let mut space = space();
        (space.sform, space.qform) = (None, None);
        space.spacing = [1.0, -2.0, 0.0, 4.0];
        let want = [[-2.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, -1.0], [0.0, 0.0, 4.0, -4.0]];
        assert_eq!(space.affine(&[3, 3, 3]).unwrap(), want);
        space.spacing[3] = f64::NAN;
        let refused = space.affine(&[3, 3, 3]).unwrap_err().to_string();
        assert!(refused.contains("pixdim"), "{refused}");
    }

    #[test]
    fn lengths_are_millimetres_whatever_the_unit() {
        for (code, factor) in [
            (0, 1.0),
            (1, 1000.0),
            (2, 1.0),
            (3, 0.001),
            (2 | 8, 1.0),
            (3 | 16, 0.001),
            (6, 1.0),
        ] {
            let mut space = space();
            space.unit = unit(code);
            let affine = space.affine(&[2, 2, 2]).unwrap();
            assert_eq!((affine[0][0], affine[2][3]), (factor, 7.0 * factor), "{code}");
        }
    }

    #[test]
    fn skew_axes_enclose_less_than_their_lengths() {
        // The second axis leans over the first by half its length.
        let skew = [[2.0, 1.5, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]];
        assert_eq!(volume(&skew), 12.0);
        assert_eq!(area(&skew, [0, 1]), 4.0);
        assert_eq!(area(&skew, [2, 1]), 7.5);
        assert_eq!(column_length(&skew, 1), 2.5);
        assert!(!has_right_angles(&skew) && has_right_angles(&ROWS));
        let turn = directions(&skew);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let product: f64 = turn.iter().map(|row| row[one] * row[other]).sum();
            assert!(product.abs() < 1e-15);
        }
        // Half of the angle between the first two axes goes to either.
        assert!((turn[0][0] - turn[1][1]).abs() < 1e-15 && turn[0][1] > 0.0 && turn[1][0] < 0.0);
        assert_eq!(
            directions(&[[1.0, 1.0, 0.0, 0.0], [0.0; 4], [0.0, 0.0, 2.0, 0.0]])[2],
            [0.0, 0.0, 1.0]
        );
    }
}
