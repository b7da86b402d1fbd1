//! How parameters travel: as 32-bit floats, or smaller as the difference from what both ends hold already.

use std::fmt::Display;

use flapsam_model::Error as ModelError;
use flapsam_model::burn::tensor::f16;
use flapsam_model::checkpoint::Floats;
use flapsam_model::parameters::{Array, StateDict};
use flapsam_model::segment::finite;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

/// In how many bits a parameter travels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats (the reference).
    #[default]
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers, and one 32-bit scale for each row.
    Int8,
}

impl Precision {
    /// The type of its tensors.
    fn dtype(self) -> Dtype {
        match self {
            Precision::F32 => Dtype::F32,
            Precision::F16 => Dtype::F16,
            Precision::Int8 => Dtype::I8,
        }
    }

    /// Bytes of one parameter, scales left out.
    pub fn bytes(self) -> u64 {
        match self {
            Precision::F32 => 4,
            Precision::F16 => 2,
            Precision::Int8 => 1,
        }
    }
}

const SCALE: &str = "#scale";

/// The tensor whose scales this tensor of a message holds, if it holds any.
pub fn scales_of(key: &str) -> Option<&str> {
    key.strip_suffix(SCALE)
}

/// A message: a safetensors file. With `Int8`, each tensor has its scales beside it, one for each index of the first
/// axis (one in all for a vector).
pub fn encode(state: &StateDict, precision: Precision) -> Vec<u8> {
    let mut parts: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (key, array) in state {
        let bytes = match precision {
            Precision::F32 => array.values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Precision::F16 => array
                .values
                .iter()
                .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                .collect(),
            Precision::Int8 => {
                let (bytes, scales) = quantised(array);
                let scales_bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                parts.push((format!("{key}{SCALE}"), Dtype::F32, vec![scales.len()], scales_bytes));
                bytes
            }
        };
        parts.push((key.clone(), precision.dtype(), array.shape.clone(), bytes));
    }
    let views = parts.iter().map(|(key, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (key, view.expect("an array has as many values as its shape says"))
    });
    safetensors::serialize(views, None).expect("writing to memory cannot fail")
}

/// What the receiver makes of a message.
///
/// # Errors
/// It is none that [`encode`] wrote.
pub fn decode(message: &[u8]) -> Result<StateDict, ModelError> {
    let tensors = SafeTensors::deserialize(message).map_err(refuse)?;
    let mut state = StateDict::new();
    for (key, view) in tensors.iter().filter(|(key, _)| scales_of(key).is_none()) {
        let values = match view.dtype() {
            Dtype::F32 => Floats::F32.to_f32(view.data()),
            Dtype::F16 => Floats::F16.to_f32(view.data()),
            Dtype::I8 => {
                let scales = tensors.tensor(&format!("{key}{SCALE}"));
                let scales = scales.map_err(refuse)?;
                let rows = rows(view.shape());
                if scales.dtype() != Dtype::F32 || scales.shape() != [rows] {
                    return Err(refuse(format!("'{key}' has {rows} rows, and not one scale for each")));
                }
                scaled(view.data(), &Floats::F32.to_f32(scales.data()))
            }
            other => {
                return Err(refuse(format!(
                    "'{key}' is of type {other:?}, and none travels as that"
                )));
            }
        };
        state.insert(key.to_owned(), Array::new(view.shape(), values));
    }
    Ok(state)
}

/// Says that bytes are no message, and why.
fn refuse(why: impl Display) -> ModelError {
    ModelError::Format {
        what: "the message",
        why: why.to_string(),
    }
}

/// How many scales a tensor has: one for each index of its first axis, or one in all.
fn rows(shape: &[usize]) -> usize {
    match shape {
        [rows, _, ..] => (*rows).max(1),
        _ => 1,
    }
}

/// The way back from [`quantised`].
fn scaled(bytes: &[u8], scales: &[f32]) -> Vec<f32> {
    let row = (bytes.len() / scales.len()).max(1);
    let rows = bytes.chunks(row).zip(scales);
    let values = rows.flat_map(|(row, scale)| row.iter().map(move |&byte| f32::from(byte as i8) * scale));
    values.collect()
}

/// Each row in steps of a 127th of its largest value: the steps, and their sizes.
fn quantised(array: &Array) -> (Vec<u8>, Vec<f32>) {
    let rows = rows(&array.shape);
    let row = (array.values.len() / rows).max(1);
    let mut bytes = Vec::with_capacity(array.values.len());
    let mut scales = Vec::with_capacity(rows);
    for row in array.values.chunks(row) {
        let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        bytes.extend(row.iter().map(|value| (value / scale).round() as i8 as u8));
        scales.push(scale);
    }
    (bytes, scales)
}

/// A message that is on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// The message: see [`encode`].
    pub message: Vec<u8>,
    /// The sum of squares of what rounding took from the message, and of what was to be said; zero at 32 bits.
    pub squares: [f64; 2],
}

impl Sent {
    /// A state at 32 bits, the same for whoever receives it.
    ///
    /// # Errors
    /// A number is not finite.
    pub fn whole(state: &StateDict) -> Result<Self, ModelError> {
        check_finite(state, "")?;
        Ok(Self {
            message: encode(state, Precision::F32),
            squares: [0.0; 2],
        })
    }
}

/// How much of what was to be said rounding took from messages, as a share of its norm; `None` of no messages.
pub fn rounding(deliveries: impl IntoIterator<Item = [f64; 2]>) -> Option<f64> {
    let [lost, whole] = deliveries.into_iter().fold([0.0; 2], |[a, b], [c, d]| [a + c, b + d]);
    (whole > 0.0).then(|| (lost / whole).sqrt())
}

/// Refuses a state with a number that is not finite.
///
/// # Errors
/// There is one; the message names its tensor.
pub fn check_finite(state: &StateDict, of: &str) -> Result<(), ModelError> {
    let mut tensors = state.iter();
    tensors.try_for_each(|(key, array)| finite(&array.values, || format!("{of}'{key}'")))
}

fn squares(state: &StateDict) -> f64 {
    let values = state.values().flat_map(|array| &array.values);
    values.map(|&value| f64::from(value) * f64::from(value)).sum()
}

/// One end of the line between a client and the server.
///
/// Below 32 bits a client sends how its parameters differ from those it started the round with, which the server holds
/// too; what the rounding took away is added to its next message (error feedback). The server sends differences as well,
/// so that its next one carries what the last one lost. A LoRA pair that the server has turned (all but the mean of
/// factors) has no coordinates in common with the one before: it comes whole, and nothing of it is carried on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Link {
    precision: Precision,
    /// What both ends hold. Empty at 32 bits, where messages are whole.
    held: StateDict,
    /// What the client's messages have lost so far; the server's end has none.
    residual: StateDict,
}

impl Link {
    /// An end over which nothing has travelled yet; both know the initial state by its seed.
    pub fn new(precision: Precision, initial: &StateDict) -> Self {
        let held = match precision {
            Precision::F32 => StateDict::new(),
            _ => initial.clone(),
        };
        Self {
            precision,
            held,
            residual: StateDict::new(),
        }
    }

    /// The client's end: its update, as a message. `lasting` says which parameters keep their coordinates from round to
    /// round.
    ///
    /// # Errors
    /// A number is not finite, or too large for the precision.
    pub fn send_update(&mut self, update: &StateDict, lasting: impl Fn(&str) -> bool) -> Result<Sent, ModelError> {
        if self.precision == Precision::F32 {
            return Sent::whole(update);
        }
        let (sent, _, mut lost) = self.rounded(update, &self.held, &self.residual)?;
        lost.retain(|key, _| lasting(key));
        self.residual = lost;
        Ok(sent)
    }

    /// The server's end: the update that a client's message holds.
    ///
    /// # Errors
    /// It is no message, or a number is not finite.
    pub fn receive_update(&self, message: &[u8]) -> Result<StateDict, ModelError> {
        received(message, self.precision, &self.held)
    }

    /// The server's end: its state, as a message.
    ///
    /// # Errors
    /// See [`Link::send_update`].
    pub fn send_state(&mut self, global: &StateDict, lasting: impl Fn(&str) -> bool) -> Result<Sent, ModelError> {
        if self.precision == Precision::F32 {
            return Sent::whole(global);
        }
        self.held.retain(|key, _| lasting(key));
        let (sent, got, _) = self.rounded(global, &self.held, &StateDict::new())?;
        self.held = got;
        Ok(sent)
    }

    /// The client's end: the server's state that a message holds.
    ///
    /// # Errors
    /// See [`Link::receive_update`].
    pub fn receive_state(&mut self, message: &[u8], lasting: impl Fn(&str) -> bool) -> Result<StateDict, ModelError> {
        self.held.retain(|key, _| lasting(key));
        let got = received(message, self.precision, &self.held)?;
        if self.precision != Precision::F32 {
            self.held = got.clone();
        }
        Ok(got)
    }

    /// How `state` differs from what both ends know, with what was lost before: the message, what the receiver has
    /// afterwards, and what was lost now.
    fn rounded(
        &self,
        state: &StateDict,
        known: &StateDict,
        lost_before: &StateDict,
    ) -> Result<(Sent, StateDict, StateDict), ModelError> {
        check_finite(state, "")?;
        let wanted = plus(&minus(state, known), lost_before);
        check_finite(&wanted, "the change of ")?;
        let message = encode(&wanted, self.precision);
        let got = decode(&message)?;
        check_finite(&got, "after rounding, the change of ")?;
        let lost = minus(&wanted, &got);
        let squares = [squares(&lost), squares(&wanted)];
        Ok((Sent { message, squares }, plus(&got, known), lost))
    }

    /// Puts these in place of what both ends hold of the same name.
    pub fn agree(&mut self, state: &StateDict) {
        if self.precision != Precision::F32 {
            self.held.extend(state.clone());
        }
    }

    /// What both ends hold, and what was lost.
    pub fn parts(&self) -> (&StateDict, &StateDict) {
        (&self.held, &self.residual)
    }

    /// The end with these parts.
    pub fn with_parts(precision: Precision, held: StateDict, residual: StateDict) -> Self {
        Self {
            precision,
            held,
            residual,
        }
    }
}

/// What a message in so many bits says to who knows this already.
fn received(message: &[u8], precision: Precision, known: &StateDict) -> Result<StateDict, ModelError> {
    let got = decode(message)?;
    let tensors = SafeTensors::deserialize(message).map_err(refuse)?;
    let mut parameters = tensors.iter().filter(|(key, _)| scales_of(key).is_none());
    if let Some((key, view)) = parameters.find(|(_, view)| view.dtype() != precision.dtype()) {
        return Err(refuse(format!(
            "'{key}' is of type {:?}, and parameters travel as {:?}",
            view.dtype(),
            precision.dtype()
        )));
    }
    check_finite(&got, "the message's ")?;
    Ok(plus(&got, known))
}

/// Every value of `state`, less that of `other` where it has one.
fn minus(state: &StateDict, other: &StateDict) -> StateDict {
    combined(state, other, |x, y| x - y)
}

/// Every value of `state`, and that of `other` where it has one.
fn plus(state: &StateDict, other: &StateDict) -> StateDict {
    combined(state, other, |x, y| x + y)
}

fn combined(state: &StateDict, other: &StateDict, operation: impl Fn(f32, f32) -> f32) -> StateDict {
    let combine = |(key, array): (&String, &Array)| {
        let values = match other.get(key) {
            Some(other) => {
                let pairs = array.values.iter().zip(&other.values);
                pairs.map(|(&x, &y)| operation(x, y)).collect()
            }
            None => array.values.clone(),
        };
        (key.clone(), Array::new(array.shape.clone(), values))
    };
    state.iter().map(combine).collect()
}

#[cfg(test)]
mod tests {
    use flapsam_model::checkpoint::write_safetensors;
    use flapsam_model::random::Random;

    use super::*;

    fn noise(name: &str) -> StateDict {
        let mut random = Random::new(1, name);
        let mut values = |count| (0..count).map(|_| random.normal() as f32).collect();
        StateDict::from([
            ("matrix".to_owned(), Array::new([4, 8], values(32))),
            ("vector".to_owned(), Array::new([5], values(5))),
        ])
    }

    fn furthest(one: &StateDict, other: &StateDict) -> f32 {
        let values = |state: &StateDict| {
            state
                .values()
                .flat_map(|array| array.values.clone())
                .collect::<Vec<_>>()
        };
        let pairs = values(one).into_iter().zip(values(other));
        pairs.fold(0.0, |furthest, (x, y)| furthest.max((x - y).abs()))
    }

    #[test]
    fn floats_of_32_bits_arrive_as_they_are() {
        let state = noise("state");
        let message = encode(&state, Precision::F32);
        assert_eq!(message, write_safetensors(&state, None));
        assert_eq!(decode(&message).unwrap(), state);
    }

    #[test]
    fn integers_are_within_half_a_step_of_their_row() {
        let state = noise("state");
        let got = decode(&encode(&state, Precision::Int8)).unwrap();
        for (row, got) in state["matrix"].values.chunks(8).zip(got["matrix"].values.chunks(8)) {
            let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            for (value, got) in row.iter().zip(got) {
                assert!((value - got).abs() <= 0.5001 * largest / 127.0, "{value} {got}");
            }
        }
        let got = decode(&encode(&state, Precision::F16)).unwrap();
        assert!(furthest(&state, &got) < 2e-3);
    }

    #[test]
    fn a_row_of_zeros_stays_so() {
        let zeros = StateDict::from([("matrix".to_owned(), Array::new([2, 3], vec![0.0; 6]))]);
        assert_eq!(decode(&encode(&zeros, Precision::Int8)).unwrap(), zeros);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let tensor = |key: &str, dtype, shape: &[usize], bytes: &'static [u8]| {
            (key.to_owned(), TensorView::new(dtype, shape.to_vec(), bytes).unwrap())
        };
        let refused = |tensors: Vec<(String, TensorView)>| {
            let message = safetensors::serialize(tensors, None).unwrap();
            decode(&message).unwrap_err().to_string()
        };
        assert!(refused(vec![tensor("a", Dtype::I64, &[1], &[0; 8])]).contains("'a' is of type I64"));
        assert!(refused(vec![tensor("a", Dtype::I8, &[2, 1], &[1, 2])]).contains("a#scale"));
        let one_scale = tensor("a#scale", Dtype::F32, &[1], &[0; 4]);
        let said = refused(vec![tensor("a", Dtype::I8, &[2, 1], &[1, 2]), one_scale]);
        assert!(said.contains("'a' has 2 rows"), "{said}");
        let written = encode(&noise("state"), Precision::F32);
        assert!(decode(&written[..written.len() - 1]).is_err());
    }

    /// With error feedback the server's sum of messages stays within one step of what the client has; without, what each
    /// message loses adds up.
    #[test]
    fn what_a_message_loses_comes_with_the_next() {
        let (mut target, step) = (noise("start"), noise("step"));
        let total = |lasting: bool| {
            let mut link = Link::new(Precision::Int8, &target);
            let mut sent = StateDict::new();
            for _ in 0..50 {
                // The client moves by the same step from what both hold, and they agree on what arrived.
                let moved = plus(&step, &link.held);
                let message = link.send_update(&moved, |_| lasting).unwrap().message;
                sent = link.receive_update(&message).unwrap();
                link.agree(&sent);
            }
            sent
        };
        let (fed_back, lost) = (total(true), total(false));
        for _ in 0..50 {
            target = plus(&target, &step);
        }
        assert!(furthest(&fed_back, &target) < 0.02, "{}", furthest(&fed_back, &target));
        assert!(furthest(&lost, &target) > 5.0 * furthest(&fed_back, &target));
    }

    #[test]
    fn the_servers_differences_carry_what_was_lost() {
        let (start, goal) = (noise("start"), noise("goal"));
        let mut server = Link::new(Precision::Int8, &start);
        let mut client = server.clone();
        let mut furthest_after = |lasting: bool| {
            let message = server.send_state(&goal, |_| lasting).unwrap().message;
            let got = client.receive_state(&message, |_| lasting).unwrap();
            assert_eq!(client, server, "both ends hold the same");
            furthest(&got, &goal)
        };
        let first = furthest_after(true);
        let second = furthest_after(true);
        assert!(first > 0.0 && second < first / 50.0, "{first} {second}");
        // A turned pair comes whole: saying it twice makes it no better.
        let whole = furthest_after(false);
        assert!(whole > 10.0 * second, "{whole} {second}");
    }

    #[test]
    fn what_rounding_took_is_measured() {
        let (start, goal) = (noise("start"), noise("goal"));
        let share = |precision| {
            let mut link = Link::new(precision, &start);
            let sent = link.send_update(&goal, |_| true).unwrap();
            let received = link.receive_update(&sent.message).unwrap();
            let (wanted, got) = (minus(&goal, &start), minus(&received, &start));
            let exact = (squares(&minus(&wanted, &got)) / squares(&wanted)).sqrt();
            let share = rounding([sent.squares]).unwrap_or(0.0);
            assert!((share - exact).abs() < 1e-6, "{share} {exact}");
            share
        };
        let shares = [Precision::F32, Precision::F16, Precision::Int8].map(share);
        assert_eq!(shares[0], 0.0);
        assert!(
            shares[1] > 1e-5 && shares[1] < 1e-3 && shares[2] > 1e-3 && shares[2] < 1e-2,
            "{shares:?}"
        );
        assert_eq!(rounding([]), None);
    }

    #[test]
    fn numbers_that_are_none_do_not_travel() {
        for precision in [Precision::F32, Precision::F16, Precision::Int8] {
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut state = noise("state");
                state.get_mut("vector").unwrap().values[3] = value;
                let mut link = Link::new(precision, &noise("start"));
                for refused in [link.send_update(&state, |_| true), link.send_state(&state, |_| true)] {
                    let refused = refused.unwrap_err().to_string();
                    assert!(refused.starts_with("'vector' is"), "{refused}");
                }
            }
        }
        // Finite, but not in 16 bits.
        let large = StateDict::from([("vector".to_owned(), Array::new([1], vec![1e6]))]);
        let refused = Link::new(Precision::F16, &StateDict::new())
            .send_update(&large, |_| true)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("after rounding, the change of 'vector' is inf"),
            "{refused}"
        );
    }
}
