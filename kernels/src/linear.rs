//! Products of matrices, and what is added to or multiplied with every row.

use burn::tensor::Tensor;

use crate::elements;
use crate::operation::{Input, Operation, Values, apply, dense, on_cpu, owned, shape, tensor};
use crate::product::{Matrix, Output, multiply};
use crate::sums;
use crate::threads;

/// `x W^T + b` over the last axis: `[.., in]` to `[.., out]`, with a weight `[out, in]`.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    if !on_cpu(&x) {
        return burn::tensor::module::linear(x, weight.transpose(), bias);
    }
    match bias {
        Some(bias) => apply(Linear, [x.into(), weight.into(), bias.into()]),
        None => apply(Linear, [Input::from(x), weight.into()]),
    }
}

/// The matrix product over the last two axes; the axes before are the same on both sides.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match on_cpu(&a) {
        true => apply(Product { turned: false }, [a.into(), b.into()]),
        false => a.matmul(b),
    }
}

/// [`matmul`] with the second factor transposed: `[.., rows, k]` and `[.., columns, k]` to `[.., rows, columns]`.
pub fn matmul_transposed<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match on_cpu(&a) {
        true => apply(Product { turned: true }, [a.into(), b.into()]),
        false => a.matmul(b.transpose()),
    }
}

/// Adds a tensor to every one of several that lie one after the other: `row` has the last extents of `x`.
pub fn add_row<const D: usize, const R: usize>(x: Tensor<D>, row: Tensor<R>) -> Tensor<D> {
    match on_cpu(&x) {
        true => apply(AddRow, [x.into(), row.into()]),
        false => x + row.unsqueeze::<D>(),
    }
}

/// Multiplies every row `[columns]` of a matrix with one, element by element.
pub fn scale_columns(x: Tensor<2>, row: Tensor<1>) -> Tensor<2> {
    match on_cpu(&x) {
        true => apply(ScaleColumns, [x.into(), row.into()]),
        false => x * row.unsqueeze::<2>(),
    }
}

/// Multiplies a tensor with a number that is a tensor `[1]`.
pub fn scale<const D: usize>(x: Tensor<D>, factor: Tensor<1>) -> Tensor<D> {
    match on_cpu(&x) {
        true => apply(Scale, [x.into(), factor.into()]),
        false => x * factor.reshape([1; D]),
    }
}

/// The sum down each column of a matrix: `[rows, columns]` to `[columns]`.
pub fn sum_rows(x: Tensor<2>) -> Tensor<1> {
    match on_cpu(&x) {
        true => apply(SumRows, [x.into()]),
        false => x.sum_dim(0).squeeze_dim(0),
    }
}

/// Sees a tensor as a matrix of its last axis's rows.
fn rows_of(shape: &[usize]) -> [usize; 2] {
    let width = shape.last().copied().unwrap_or(1);
    [shape.iter().product::<usize>() / width.max(1), width]
}

/// A matrix as it lies, or a dense copy's.
fn matrix(values: &Values) -> (std::borrow::Cow<'_, [f32]>, [usize; 2], [usize; 2]) {
    let (layout, extents) = (values.layout(), shape(values));
    let strides: Option<Vec<usize>> = layout.strides().iter().map(|&stride| stride.try_into().ok()).collect();
    let extents = [extents[0], extents[1]];
    match strides {
        Some(strides) if strides[0] > 0 && strides[1] > 0 => {
            let storage = &values.storage::<f32>()[layout.start_offset()..];
            (storage.into(), extents, [strides[0], strides[1]])
        }
        _ => (dense(values), extents, [extents[1], 1]),
    }
}

fn product(a: Matrix, b: Matrix, rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows * columns];
    multiply(a, b, &mut out, columns, Output::Replace);
    out
}

vectorised! {
    fn add_to_rows(rows: &mut [f32], row: &[f32]) {
        for place in rows.chunks_exact_mut(row.len()) {
            for (place, &value) in place.iter_mut().zip(row) {
                *place += value;
            }
        }
    }

    fn multiply_rows(rows: &mut [f32], row: &[f32]) {
        for place in rows.chunks_exact_mut(row.len()) {
            for (place, &value) in place.iter_mut().zip(row) {
                *place *= value;
            }
        }
    }
}

/// Calls `each` with runs of whole rows, divided among threads.
fn on_rows(values: &mut [f32], width: usize, each: impl Fn(&mut [f32]) + Send + Sync) {
    let work = values.len();
    threads::chunks(values, width, work, |_, rows| each(rows));
}

#[derive(Debug, Clone)]
struct Linear;

/// What the gradients of a product need of its factors.
type Factors = (Option<Values>, Option<Values>);

impl Linear {
    fn forward(x: &Values, weight: &Values, bias: Option<&Values>) -> Values {
        let mut extents = shape(x);
        let [rows, inputs] = rows_of(&extents);
        let (values, (weight, [outputs, _], strides)) = (dense(x), matrix(weight));
        let weight = Matrix::new(&weight, [outputs, inputs], strides);
        let mut out = product(Matrix::dense(&values, rows, inputs), weight.transposed(), rows, outputs);
        if let Some(bias) = bias {
            let bias = dense(bias);
            on_rows(&mut out, outputs, |rows| add_to_rows(rows, &bias));
        }
        if let Some(last) = extents.last_mut() {
            *last = outputs;
        }
        tensor(out, extents)
    }

    /// The gradients of input and weight.
    fn backward((x, weight): Factors, gradient: &Values) -> [Option<Values>; 2] {
        let mut extents = shape(gradient);
        let [rows, outputs] = rows_of(&extents);
        let gradient = dense(gradient);
        let gradient = Matrix::dense(&gradient, rows, outputs);
        let of_weight = x.map(|x| {
            let [_, inputs] = rows_of(&shape(&x));
            let x = dense(&x);
            let x = Matrix::dense(&x, rows, inputs);
            tensor(product(gradient.transposed(), x, outputs, inputs), [outputs, inputs])
        });
        let of_x = weight.map(|weight| {
            let (weight, [_, inputs], strides) = matrix(&weight);
            let weight = Matrix::new(&weight, [outputs, inputs], strides);
            if let Some(last) = extents.last_mut() {
                *last = inputs;
            }
            tensor(product(gradient, weight, rows, inputs), extents)
        });
        [of_x, of_weight]
    }
}

impl Operation<2> for Linear {
    type Kept = Factors;

    fn forward(&self, [x, weight]: &[Values; 2], [x_wanted, weight_wanted]: [bool; 2]) -> (Values, Factors) {
        let kept = (weight_wanted.then(|| x.clone()), x_wanted.then(|| weight.clone()));
        (Linear::forward(x, weight, None), kept)
    }

    fn backward(&self, kept: Factors, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        Linear::backward(kept, &gradient)
    }
}

impl Operation<3> for Linear {
    type Kept = Factors;

    fn forward(&self, [x, weight, bias]: &[Values; 3], [x_wanted, weight_wanted, _]: [bool; 3]) -> (Values, Factors) {
        let kept = (weight_wanted.then(|| x.clone()), x_wanted.then(|| weight.clone()));
        (Linear::forward(x, weight, Some(bias)), kept)
    }

    fn backward(&self, kept: Factors, gradient: Values, [_, _, bias]: [bool; 3]) -> [Option<Values>; 3] {
        let of_bias = bias.then(|| last_axis_sums(&gradient));
        let [of_x, of_weight] = Linear::backward(kept, &gradient);
        [of_x, of_weight, of_bias]
    }
}

/// The sum over all axes but the last.
fn last_axis_sums(values: &Values) -> Values {
    let [_, width] = rows_of(&shape(values));
    let mut out = vec![0.0; width];
    sums::columns(width, &dense(values), &mut out);
    tensor(out, [width])
}

/// A product of every pair of matrices, the second one transposed before or not.
#[derive(Debug, Clone)]
struct Product {
    turned: bool,
}

impl Product {
    /// For every pair of matrices: `a b`, with either one transposed before.
    fn batched(a: &Values, b: &Values, [a_turned, b_turned]: [bool; 2]) -> Values {
        let (mut extents, other) = (shape(a), shape(b));
        let rank = extents.len();
        let last = |extents: &[usize]| [extents[rank - 2], extents[rank - 1]];
        let ([a_rows, a_columns], [b_rows, b_columns]) = (last(&extents), last(&other));
        let rows = if a_turned { a_columns } else { a_rows };
        let columns = if b_turned { b_rows } else { b_columns };
        let (a, b) = (dense(a), dense(b));
        let count: usize = extents[..rank - 2].iter().product();
        let mut out = vec![0.0; count * rows * columns];
        for number in 0..count {
            let part = |values, rows, columns, turned| {
                let matrix = Matrix::dense(one_of(values, number, rows * columns), rows, columns);
                if turned { matrix.transposed() } else { matrix }
            };
            let (a, b) = (
                part(&a, a_rows, a_columns, a_turned),
                part(&b, b_rows, b_columns, b_turned),
            );
            let out = &mut out[number * rows * columns..][..rows * columns];
            multiply(a, b, out, columns, Output::Replace);
        }
        extents[rank - 2..].copy_from_slice(&[rows, columns]);
        tensor(out, extents)
    }
}

/// One of several pieces of a length.
fn one_of(values: &[f32], number: usize, length: usize) -> &[f32] {
    &values[number * length..][..length]
}

impl Operation<2> for Product {
    type Kept = Factors;

    fn forward(&self, [a, b]: &[Values; 2], [a_wanted, b_wanted]: [bool; 2]) -> (Values, Factors) {
        let kept = (b_wanted.then(|| a.clone()), a_wanted.then(|| b.clone()));
        (Product::batched(a, b, [false, self.turned]), kept)
    }

    fn backward(&self, (a, b): Factors, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        let of_a = b.map(|b| Product::batched(&gradient, &b, [false, !self.turned]));
        let of_b = a.map(|a| match self.turned {
            true => Product::batched(&gradient, &a, [true, false]),
            false => Product::batched(&a, &gradient, [true, false]),
        });
        [of_a, of_b]
    }
}

#[derive(Debug, Clone)]
struct AddRow;

impl Operation<2> for AddRow {
    /// The row's extents.
    type Kept = Vec<usize>;

    fn forward(&self, [x, row]: &[Values; 2], _: [bool; 2]) -> (Values, Vec<usize>) {
        let (mut out, added) = (dense(x).into_owned(), dense(row));
        on_rows(&mut out, added.len(), |rows| add_to_rows(rows, &added));
        (tensor(out, shape(x)), shape(row))
    }

    fn backward(&self, row: Vec<usize>, gradient: Values, [x_wanted, row_wanted]: [bool; 2]) -> [Option<Values>; 2] {
        let of_row = row_wanted.then(|| {
            let mut out = vec![0.0; row.iter().product()];
            sums::columns(out.len(), &dense(&gradient), &mut out);
            tensor(out, row)
        });
        [x_wanted.then_some(gradient), of_row]
    }
}

#[derive(Debug, Clone)]
struct ScaleColumns;

impl Operation<2> for ScaleColumns {
    type Kept = Factors;

    fn forward(&self, [x, row]: &[Values; 2], [x_wanted, row_wanted]: [bool; 2]) -> (Values, Factors) {
        let (mut out, factors) = (dense(x).into_owned(), dense(row));
        on_rows(&mut out, factors.len(), |rows| multiply_rows(rows, &factors));
        let kept = (row_wanted.then(|| x.clone()), x_wanted.then(|| row.clone()));
        (tensor(out, shape(x)), kept)
    }

    fn backward(&self, (x, row): Factors, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        let of_row = x.map(|x| {
            let mut products = dense(&x).into_owned();
            elements::multiply(&mut products, &dense(&gradient));
            last_axis_sums(&tensor(products, shape(&x)))
        });
        let of_x = row.map(|row| {
            let (extents, factors) = (shape(&gradient), dense(&row));
            let mut out = owned(gradient);
            multiply_rows(&mut out, &factors);
            tensor(out, extents)
        });
        [of_x, of_row]
    }
}

#[derive(Debug, Clone)]
struct Scale;

impl Operation<2> for Scale {
    type Kept = Factors;

    fn forward(&self, [x, factor]: &[Values; 2], [x_wanted, factor_wanted]: [bool; 2]) -> (Values, Factors) {
        let mut out = dense(x).into_owned();
        elements::scale(&mut out, dense(factor)[0]);
        let kept = (factor_wanted.then(|| x.clone()), x_wanted.then(|| factor.clone()));
        (tensor(out, shape(x)), kept)
    }

    fn backward(&self, (x, factor): Factors, gradient: Values, _: [bool; 2]) -> [Option<Values>; 2] {
        let of_factor = x.map(|x| tensor(vec![elements::inner(&dense(&x), &dense(&gradient))], [1]));
        let of_x = factor.map(|factor| {
            let extents = shape(&gradient);
            let mut out = owned(gradient);
            elements::scale(&mut out, dense(&factor)[0]);
            tensor(out, extents)
        });
        [of_x, of_factor]
    }
}

#[derive(Debug, Clone)]
struct SumRows;

impl Operation<1> for SumRows {
    /// The matrix's extents.
    type Kept = Vec<usize>;

    fn forward(&self, [x]: &[Values; 1], _: [bool; 1]) -> (Values, Vec<usize>) {
        (last_axis_sums(x), shape(x))
    }

    fn backward(&self, extents: Vec<usize>, gradient: Values, _: [bool; 1]) -> [Option<Values>; 1] {
        [Some(tensor(dense(&gradient).repeat(extents[0]), extents))]
    }
}
