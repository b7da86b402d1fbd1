//! Multi-head attention as one operation: scores, SAM's relative positions, softmax and values, a tile of queries at a time,
//! so that no tensor of the scores' size is kept. The gradient computes the scores once more.

use std::borrow::Cow;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::activation::exponentials;
use crate::elements;
use crate::operation::{Input, Operation, Values, apply, dense, on_cpu, shape, tensor};
use crate::product::{Matrix, Output, Place, multiply_here};
use crate::sums;
use crate::threads::{self, Shared};

/// At most so many queries are in a tile.
const QUERIES: usize = 128;

/// What positions add to the scores of tokens that are the places of a grid `[high, wide]`.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "one is made for each attention, and moved once"
)]
pub enum Positions {
    /// SAM's: `q . rows[row - row' + high - 1]` and `q . columns[column - column' + wide - 1]`.
    Relative {
        /// `[2 * high - 1, width]`
        rows: Tensor<2>,
        /// `[2 * wide - 1, width]`
        columns: Tensor<2>,
        /// The grid's extents.
        grid: [usize; 2],
    },
    /// TinyViT's: `biases[head, |row - row'| * wide + |column - column'|]`.
    Biases {
        /// `[head, high * wide]`
        biases: Tensor<2>,
        /// The grid's extents.
        grid: [usize; 2],
    },
}

impl Positions {
    fn grid(&self) -> [usize; 2] {
        match self {
            Positions::Relative { grid, .. } | Positions::Biases { grid, .. } => *grid,
        }
    }
}

/// `softmax(scale q k^T + positions) v` for every head: `[batch, query, channel]` and twice `[batch, key, channel]`, the
/// channels of a head side by side, to `[batch, query, channel]`.
pub fn attention([q, k, v]: [Tensor<3>; 3], heads: usize, scale: f64, positions: Option<Positions>) -> Tensor<3> {
    if !on_cpu(&q) {
        return by_operations([q, k, v], heads, scale, positions);
    }
    let grid = positions.as_ref().map(Positions::grid);
    let operation = Attention {
        heads,
        scale: scale as f32,
        grid,
    };
    match positions {
        None => apply(operation, [Input::from(q), k.into(), v.into()]),
        Some(Positions::Biases { biases, .. }) => apply(operation, [q.into(), k.into(), v.into(), biases.into()]),
        Some(Positions::Relative { rows, columns, .. }) => {
            apply(operation, [q.into(), k.into(), v.into(), rows.into(), columns.into()])
        }
    }
}

/// The same by burn's operations.
fn by_operations([q, k, v]: [Tensor<3>; 3], heads: usize, scale: f64, positions: Option<Positions>) -> Tensor<3> {
    let [batch, queries, channels] = q.dims();
    let width = channels / heads;
    let split = |x: Tensor<3>| {
        let tokens = x.dims()[1];
        x.reshape([batch, tokens, heads, width])
            .permute([0, 2, 1, 3])
            .reshape([batch * heads, tokens, width])
    };
    let (q, k, v) = (split(q), split(k), split(v));
    let scores = (q.clone() * scale).matmul(k.transpose());
    let scores = match positions {
        None => scores,
        Some(Positions::Relative { rows, columns, grid }) => add_relative(scores, q, [rows, columns], grid),
        Some(Positions::Biases { biases, grid }) => add_biases(scores, biases, grid),
    };
    softmax(scores, 2)
        .matmul(v)
        .reshape([batch, heads, queries, width])
        .permute([0, 2, 1, 3])
        .reshape([batch, queries, channels])
}

/// Adds biases by head to the scores `[batch * head, token, token]`.
fn add_biases(scores: Tensor<3>, biases: Tensor<2>, [high, wide]: [usize; 2]) -> Tensor<3> {
    let [units, tokens, _] = scores.dims();
    let heads = biases.dims()[0];
    let apart = |query: usize, key: usize, wide: usize| {
        (query / wide).abs_diff(key / wide) * wide + (query % wide).abs_diff(key % wide)
    };
    let pairs = (0..tokens).flat_map(|query| (0..tokens).map(move |key| apart(query, key, wide) as i32));
    let index = TensorData::new(pairs.collect::<Vec<i32>>(), [tokens * tokens]);
    debug_assert_eq!(tokens, high * wide);
    let biases = biases.clone().select(1, Tensor::from_data(index, &biases.device()));
    let scores = scores.reshape([units / heads, heads, tokens, tokens]) + biases.reshape([1, heads, tokens, tokens]);
    scores.reshape([units, tokens, tokens])
}

/// Adds relative positions to the scores `[batch * head, token, token]`.
fn add_relative(
    scores: Tensor<3>,
    q: Tensor<3>,
    [rows, columns]: [Tensor<2>; 2],
    [high, wide]: [usize; 2],
) -> Tensor<3> {
    let [batch, tokens, width] = q.dims();
    let by_row = relative(rows, high);
    let by_column = relative(columns, wide);
    let q = q.reshape([batch, high, wide, width]);
    // One product per query row (or column), over all batches at once.
    let rows = q
        .clone()
        .permute([1, 0, 2, 3])
        .reshape([high, batch * wide, width])
        .matmul(by_row.transpose())
        .reshape([high, batch, wide, high])
        .permute([1, 0, 2, 3]);
    let columns = q
        .permute([2, 0, 1, 3])
        .reshape([wide, batch * high, width])
        .matmul(by_column.transpose())
        .reshape([wide, batch, high, wide])
        .permute([1, 2, 0, 3]);
    let scores = scores.reshape([batch, high, wide, high, wide])
        + rows.reshape([batch, high, wide, high, 1])
        + columns.reshape([batch, high, wide, 1, wide]);
    scores.reshape([batch, tokens, tokens])
}

/// The table's rows for every pair of positions: `[2 * side - 1, width]` to `[side, side, width]`.
fn relative(table: Tensor<2>, side: usize) -> Tensor<3> {
    let width = table.dims()[1];
    let index = relative_index(side, &table.device());
    table.select(0, index).reshape([side, side, width])
}

fn relative_index(side: usize, device: &Device) -> Tensor<1, Int> {
    let pairs = (0..side).flat_map(|query| (0..side).map(move |key| query + side - 1 - key));
    let index: Vec<i32> = pairs.map(|row| row as i32).collect();
    Tensor::from_data(TensorData::new(index, [side * side]), device)
}

#[derive(Debug, Clone)]
struct Attention {
    heads: usize,
    scale: f32,
    grid: Option<[usize; 2]>,
}

/// Tokens of every head: `[batch, token, channel]` with any distance between batches and between tokens.
struct Tokens<'a> {
    values: Cow<'a, [f32]>,
    count: usize,
    batch_stride: usize,
    token_stride: usize,
    width: usize,
    heads: usize,
}

impl<'a> Tokens<'a> {
    fn new(values: &'a Values, heads: usize) -> Self {
        let extents = shape(values);
        let (layout, width) = (values.layout(), extents[2] / heads);
        let (values, strides) = match layout.strides() {
            &[batch, token, 1] if batch > 0 && token > 0 => {
                let storage = &values.storage::<f32>()[layout.start_offset()..];
                (storage.into(), [batch as usize, token as usize])
            }
            _ => (dense(values), [extents[1] * extents[2], extents[2]]),
        };
        let [batch_stride, token_stride] = strides;
        Self {
            values,
            count: extents[1],
            batch_stride,
            token_stride,
            width,
            heads,
        }
    }

    fn start(&self, unit: usize) -> usize {
        unit / self.heads * self.batch_stride + unit % self.heads * self.width
    }

    /// A head's tokens, from one on.
    fn head(&self, unit: usize, first: usize, count: usize) -> Matrix<'_> {
        let start = self.start(unit) + first * self.token_stride;
        Matrix::new(&self.values[start..], [count, self.width], [self.token_stride, 1])
    }

    /// A head's share of one token.
    fn token(&self, unit: usize, token: usize) -> &[f32] {
        &self.values[self.start(unit) + token * self.token_stride..][..self.width]
    }
}

/// Where the tokens of every head go: dense, and each head's to its own places.
#[derive(Clone, Copy)]
struct Places {
    out: Shared,
    count: usize,
    heads: usize,
    width: usize,
}

impl Places {
    fn new(out: &mut [f32], count: usize, heads: usize, width: usize) -> Self {
        let out = Shared::new(out);
        Self {
            out,
            count,
            heads,
            width,
        }
    }

    fn place(&self, unit: usize, first: usize, output: Output) -> Place {
        let stride = self.heads * self.width;
        let start = (unit / self.heads * self.count + first) * stride + unit % self.heads * self.width;
        Place {
            // SAFETY: every token of every head lies inside.
            out: unsafe { self.out.from(start) },
            stride,
            output,
        }
    }

    /// # Safety
    /// No other thread touches this unit's tokens.
    unsafe fn token<'a>(&self, unit: usize, token: usize) -> &'a mut [f32] {
        // SAFETY: the token lies inside, and is the caller's own.
        unsafe { self.place(unit, token, Output::Replace).out.slice(0, self.width) }
    }
}

/// The tables of relative positions, `[2 * side - 1, width]`; that of columns from last to first, so that what a query
/// takes from it lies in the order of keys.
struct Tables {
    rows: Vec<f32>,
    columns: Vec<f32>,
    grid: [usize; 2],
    width: usize,
}

impl Tables {
    fn new(rows: &Values, columns: &Values, grid: [usize; 2], width: usize) -> Self {
        let (rows, columns) = (dense(rows).into_owned(), reversed(&dense(columns), width));
        Self {
            rows,
            columns,
            grid,
            width,
        }
    }

    /// Both tables, as matrices.
    fn matrices(&self) -> [Matrix<'_>; 2] {
        [&self.rows, &self.columns].map(|table| Matrix::dense(table, table.len() / self.width, self.width))
    }

    fn lengths(&self) -> [usize; 2] {
        self.grid.map(|side| 2 * side - 1)
    }
}

/// Biases by head and by how far apart query and key are, [`Positions::Biases`].
struct Biases {
    /// Each head's, `[high, 2 * wide - 1]`: those of columns on both sides of the query's, so that what a query takes lies
    /// in the order of keys.
    heads: Vec<Vec<f32>>,
    grid: [usize; 2],
}

impl Biases {
    fn new(biases: &Values, grid: [usize; 2]) -> Self {
        let [high, wide] = grid;
        let both_sides = |line: &[f32]| -> Vec<f32> { line.iter().skip(1).rev().chain(line).copied().collect() };
        let head = |values: &[f32]| values.chunks_exact(wide).flat_map(both_sides).collect();
        Self {
            heads: dense(biases).chunks_exact(high * wide).map(head).collect(),
            grid,
        }
    }

    /// Values of a head's both sides.
    fn length(&self) -> usize {
        self.grid[0] * (2 * self.grid[1] - 1)
    }

    /// Where a query's line for a row of keys begins in a head's both sides.
    fn line(&self, query: usize, key_row: usize) -> usize {
        let [_, wide] = self.grid;
        (query / wide).abs_diff(key_row) * (2 * wide - 1) + wide - 1 - query % wide
    }

    /// Adds a head's biases to the scores of queries from `first` on.
    fn add(&self, head: usize, first: usize, scores: &mut [f32]) {
        let [high, wide] = self.grid;
        for (number, scores) in scores.chunks_exact_mut(high * wide).enumerate() {
            for (row, scores) in scores.chunks_exact_mut(wide).enumerate() {
                elements::add(&self.heads[head][self.line(first + number, row)..][..wide], scores);
            }
        }
    }

    /// Adds the gradients of scores of queries from `first` on to those of a head's both sides.
    fn add_gradients(&self, first: usize, gradients: &[f32], sides: &mut [f32]) {
        let [high, wide] = self.grid;
        for (number, gradients) in gradients.chunks_exact(high * wide).enumerate() {
            for (row, gradients) in gradients.chunks_exact(wide).enumerate() {
                elements::add(gradients, &mut sides[self.line(first + number, row)..][..wide]);
            }
        }
    }

    /// The biases' gradient from that of all heads' both sides.
    fn gradient(&self, sides: &[f32]) -> Vec<f32> {
        let wide = self.grid[1];
        let one_side = |line: &[f32]| -> Vec<f32> {
            let apart = |distance: usize| match distance {
                0 => line[wide - 1],
                _ => line[wide - 1 - distance] + line[wide - 1 + distance],
            };
            (0..wide).map(apart).collect()
        };
        sides.chunks_exact(2 * wide - 1).flat_map(one_side).collect()
    }
}

/// What positions add, in the order of the operation's inputs.
enum Added {
    Nothing,
    Relative(Tables),
    Biases(Biases),
}

impl Added {
    fn relative(&self) -> Option<&Tables> {
        match self {
            Added::Relative(tables) => Some(tables),
            _ => None,
        }
    }

    /// Lengths of the gradients of its inputs, by unit.
    fn lengths(&self) -> [usize; 2] {
        match self {
            Added::Nothing => [0, 0],
            Added::Relative(tables) => tables.lengths().map(|length| length * tables.width),
            Added::Biases(biases) => [biases.length(), 0],
        }
    }
}

/// A matrix's rows from last to first.
fn reversed(values: &[f32], width: usize) -> Vec<f32> {
    values.chunks_exact(width).rev().flatten().copied().collect()
}

/// Sizes of the tiles of queries: as equal as they can be.
fn tiles(queries: usize) -> impl Iterator<Item = (usize, usize)> {
    let size = queries.div_ceil(queries.div_ceil(QUERIES).max(1)).max(1);
    (0..queries)
        .step_by(size)
        .map(move |start| (start, size.min(queries - start)))
}

/// The scores of a tile of queries and what relative positions add to them.
#[derive(Default)]
struct Scores {
    values: Vec<f32>,
    /// Of the grid's rows and columns, `[query, 2 * side - 1]` each.
    added: [Vec<f32>; 2],
}

/// `a b` into a vector, on this thread.
fn product(a: Matrix, b: Matrix, rows: usize, columns: usize, out: &mut Vec<f32>) {
    out.resize(rows * columns, 0.0);
    let place = Place {
        out: Shared::new(out),
        stride: columns,
        output: Output::Replace,
    };
    // SAFETY: the vector has that many elements, and is this function's own.
    unsafe { multiply_here(a, b, place) };
}

impl Scores {
    /// `scale q k^T`, and positions, for the queries from `first` on.
    fn compute(
        &mut self,
        [q, k]: [Matrix; 2],
        [queries, keys]: [usize; 2],
        scale: f32,
        first: usize,
        head: usize,
        positions: &Added,
    ) {
        product(q, k.transposed(), queries, keys, &mut self.values);
        elements::scale(&mut self.values, scale);
        let tables = match positions {
            Added::Nothing => return,
            Added::Biases(biases) => return biases.add(head, first, &mut self.values),
            Added::Relative(tables) => tables,
        };
        for ((table, length), added) in tables.matrices().into_iter().zip(tables.lengths()).zip(&mut self.added) {
            product(q, table.transposed(), queries, length, added);
        }
        let [high, wide] = tables.grid;
        let [by_row, by_column] = &self.added;
        for (number, scores) in self.values.chunks_exact_mut(keys).enumerate() {
            let (row, column) = ((first + number) / wide, (first + number) % wide);
            let by_row = &by_row[number * (2 * high - 1) + row..][..high];
            let by_column = &by_column[number * (2 * wide - 1) + wide - 1 - column..][..wide];
            add_two(scores, by_row, by_column);
        }
    }
}

vectorised! {
    /// Adds to each row of keys its own number, the last one first, and to each key its column's.
    fn add_two(scores: &mut [f32], by_row: &[f32], by_column: &[f32]) {
        for (scores, &by_row) in scores.chunks_exact_mut(by_column.len()).zip(by_row.iter().rev()) {
            for (score, &by_column) in scores.iter_mut().zip(by_column) {
                *score = *score + by_row + by_column;
            }
        }
    }

    fn exponentials_of(line: &mut [f32]) -> [f32; 2] {
        exponentials(line)
    }

    /// The probabilities that a line of scores had, and then the gradient of the scores.
    fn scores_gradient(scores: &mut [f32], statistics: [f32; 2], gradients: &mut [f32], along: f32) {
        let [largest, scale] = statistics;
        for (score, gradient) in scores.iter_mut().zip(gradients) {
            *score = crate::elementary::exp(*score - largest) * scale;
            *gradient = *score * (*gradient - along);
        }
    }

    /// The sums over each row of keys, the last one first.
    fn sums_by_row(gradients: &[f32], wide: usize, out: &mut [f32]) {
        for (gradients, out) in gradients.chunks_exact(wide).zip(out.iter_mut().rev()) {
            *out = sums::line(gradients, |x| x);
        }
    }

    fn sums_by_column(gradients: &[f32], wide: usize, out: &mut [f32]) {
        for gradients in gradients.chunks_exact(wide) {
            for (out, &gradient) in out.iter_mut().zip(gradients) {
                *out += gradient;
            }
        }
    }
}

/// What the gradient needs: the inputs, the result, and of every query its largest score and one over its sum.
#[derive(Debug, Clone)]
struct Kept<const N: usize> {
    inputs: [Values; N],
    result: Values,
    statistics: Vec<[f32; 2]>,
}

impl Attention {
    fn positions(&self, inputs: &[Values], width: usize) -> Added {
        match (inputs, self.grid) {
            ([rows, columns], Some(grid)) => Added::Relative(Tables::new(rows, columns, grid, width)),
            ([biases], Some(grid)) => Added::Biases(Biases::new(biases, grid)),
            _ => Added::Nothing,
        }
    }

    /// The result, and every query's statistics.
    fn run(&self, q: &Values, k: &Values, v: &Values, positions: &[Values]) -> (Values, Vec<[f32; 2]>) {
        let extents = shape(q);
        let units = extents[0] * self.heads;
        let [q, k, v] = [q, k, v].map(|x| Tokens::new(x, self.heads));
        let positions = self.positions(positions, q.width);
        let mut out = vec![0.0; extents.iter().product()];
        let places = Places::new(&mut out, q.count, self.heads, q.width);
        let mut statistics = vec![[0f32; 2]; units * q.count];
        let noted = Shared::new(statistics.as_flattened_mut());
        threads::each(units, units * q.count * k.count * q.width / 4, |unit| {
            let mut scores = Scores::default();
            for (first, queries) in tiles(q.count) {
                let pair = [q.head(unit, first, queries), k.head(unit, 0, k.count)];
                scores.compute(
                    pair,
                    [queries, k.count],
                    self.scale,
                    first,
                    unit % self.heads,
                    &positions,
                );
                // SAFETY: the units are of different queries.
                let noted = unsafe { noted.slice(2 * (unit * q.count + first), 2 * queries) };
                let lines = scores.values.chunks_exact_mut(k.count);
                for (line, noted) in lines.zip(noted.as_chunks_mut::<2>().0) {
                    *noted = exponentials_of(line);
                }
                let weights = Matrix::dense(&scores.values, queries, k.count);
                let place = places.place(unit, first, Output::Replace);
                // SAFETY: the units are of different heads.
                unsafe { multiply_here(weights, v.head(unit, 0, v.count), place) };
                for (number, [_, scale]) in noted.as_chunks::<2>().0.iter().enumerate() {
                    // SAFETY: the same.
                    elements::scale(unsafe { places.token(unit, first + number) }, *scale);
                }
            }
        });
        (tensor(out, extents), statistics)
    }

    /// The result, and what its gradient needs.
    fn keep<const N: usize>(inputs: &[Values; N], ran: (Values, Vec<[f32; 2]>)) -> (Values, Kept<N>) {
        let (result, statistics) = ran;
        let kept = Kept {
            inputs: inputs.clone(),
            result: result.clone(),
            statistics,
        };
        (result, kept)
    }

    /// The gradients of q, k and v, and of what positions add, if that is wanted.
    fn gradients<const N: usize>(
        &self,
        kept: Kept<N>,
        gradient: &Values,
        positions_wanted: bool,
    ) -> ([Values; 3], Vec<Values>) {
        let inputs = kept.inputs.as_slice();
        let [q, k, v] = [&inputs[0], &inputs[1], &inputs[2]].map(|x| Tokens::new(x, self.heads));
        let [result, slopes] = [&kept.result, gradient].map(|x| Tokens::new(x, self.heads));
        let positions = self.positions(&inputs[3..], q.width);
        let units = shape(gradient)[0] * self.heads;
        let mut out = [&q, &k, &v].map(|x| vec![0f32; units * x.count * x.width]);
        let places = {
            let [q_out, k_out, v_out] = &mut out;
            [(q_out, &q), (k_out, &k), (v_out, &v)].map(|(out, x)| Places::new(out, x.count, self.heads, x.width))
        };
        // Each unit's own, so that they can be added in order.
        let lengths = if positions_wanted { positions.lengths() } else { [0, 0] };
        let mut of_positions = lengths.map(|length| vec![0f32; units * length]);
        let positions_out = of_positions.each_mut().map(|values| Shared::new(values));
        let work = units * q.count * k.count * q.width;
        let backward = Backward {
            attention: self,
            inputs: [q, k, v],
            result,
            slopes,
            statistics: &kept.statistics,
            positions: &positions,
            out: places,
            positions_out: positions_wanted.then_some(positions_out),
        };
        threads::each(units, work, |unit| backward.unit(unit));
        let [of_q, of_k, of_v] = out;
        let gradients = [(of_q, &inputs[0]), (of_k, &inputs[1]), (of_v, &inputs[2])];
        let gradients = gradients.map(|(values, like)| tensor(values, shape(like)));
        if !positions_wanted {
            return (gradients, Vec::new());
        }
        (gradients, self.summed(&positions, &of_positions, &inputs[3..]))
    }

    /// The gradients of what positions add, from those of every unit.
    fn summed(&self, positions: &Added, units: &[Vec<f32>; 2], inputs: &[Values]) -> Vec<Values> {
        // In the order of batches; each head by itself where heads have their own.
        let summed = |units: &[f32], length: usize| {
            let mut sum = vec![0.0; length];
            sums::columns(length, units, &mut sum);
            sum
        };
        let lengths = positions.lengths();
        match positions {
            Added::Nothing => Vec::new(),
            Added::Relative(tables) => {
                let [rows, columns] = [0, 1].map(|which| summed(&units[which], lengths[which]));
                let [high, wide] = tables.lengths();
                let columns = reversed(&columns, tables.width);
                vec![
                    tensor(rows, [high, tables.width]),
                    tensor(columns, [wide, tables.width]),
                ]
            }
            Added::Biases(biases) => {
                let sides = summed(&units[0], self.heads * biases.length());
                vec![tensor(biases.gradient(&sides), shape(&inputs[0]))]
            }
        }
    }
}

/// What the gradients of all units are computed from, and where they go.
struct Backward<'a> {
    attention: &'a Attention,
    /// q, k and v.
    inputs: [Tokens<'a>; 3],
    result: Tokens<'a>,
    /// The gradient of the result.
    slopes: Tokens<'a>,
    statistics: &'a [[f32; 2]],
    positions: &'a Added,
    /// Of q, k and v.
    out: [Places; 3],
    /// Of what positions add, where that is wanted: each unit's own.
    positions_out: Option<[Shared; 2]>,
}

impl Backward<'_> {
    /// The gradients of one head of one batch, into its own places.
    fn unit(&self, unit: usize) {
        let mut scores = Scores::default();
        let mut gradients = Vec::new();
        for (first, queries) in tiles(self.inputs[0].count) {
            self.probabilities(unit, first, queries, &mut scores, &mut gradients);
            self.tile(unit, first, queries, &scores.values, &mut gradients);
        }
    }

    /// The probabilities of a tile of queries in place of its scores, and the gradients of the scores.
    fn probabilities(&self, unit: usize, first: usize, queries: usize, scores: &mut Scores, gradients: &mut Vec<f32>) {
        let [q, k, v] = &self.inputs;
        let pair = [q.head(unit, first, queries), k.head(unit, 0, k.count)];
        let (scale, head) = (self.attention.scale, unit % self.attention.heads);
        scores.compute(pair, [queries, k.count], scale, first, head, self.positions);
        let values = v.head(unit, 0, v.count);
        let slopes = self.slopes.head(unit, first, queries);
        product(slopes, values.transposed(), queries, k.count, gradients);
        let lines = scores
            .values
            .chunks_exact_mut(k.count)
            .zip(gradients.chunks_exact_mut(k.count));
        for (number, (scores, gradients)) in lines.enumerate() {
            let query = first + number;
            let along = elements::inner(self.slopes.token(unit, query), self.result.token(unit, query));
            scores_gradient(scores, self.statistics[unit * q.count + query], gradients, along);
        }
    }

    /// What a tile of queries adds to the unit's gradients, from its probabilities and the gradients of its scores.
    fn tile(&self, unit: usize, first: usize, queries: usize, probabilities: &[f32], gradients: &mut [f32]) {
        let [q, k, _] = &self.inputs;
        let [q_out, k_out, v_out] = &self.out;
        let [q_tile, slope_tile] = [q, &self.slopes].map(|x| x.head(unit, first, queries));
        let output = if first == 0 { Output::Replace } else { Output::Add };
        let weights = Matrix::dense(probabilities, queries, k.count);
        // SAFETY: the units are of different heads.
        unsafe { multiply_here(weights.transposed(), slope_tile, v_out.place(unit, 0, output)) };
        if let (Added::Biases(biases), Some(out)) = (self.positions, self.positions_out) {
            let length = biases.length();
            // SAFETY: every unit has its own.
            biases.add_gradients(first, gradients, unsafe { out[0].slice(unit * length, length) });
        }
        let added = self.positions.relative().map(|tables| {
            let added = position_gradients(tables, gradients, k.count, first);
            if let Some(out) = self.positions_out {
                table_gradients(tables, &added, q_tile, unit, out, output);
            }
            (tables, added)
        });
        elements::scale(gradients, self.attention.scale);
        let of_scores = Matrix::dense(gradients, queries, k.count);
        let place = q_out.place(unit, first, Output::Replace);
        // SAFETY: the units are of different heads.
        unsafe {
            multiply_here(of_scores.transposed(), q_tile, k_out.place(unit, 0, output));
            multiply_here(of_scores, k.head(unit, 0, k.count), place);
        }
        if let Some((tables, added)) = added {
            let place = Place {
                output: Output::Add,
                ..place
            };
            for ((added, table), length) in added.iter().zip(tables.matrices()).zip(tables.lengths()) {
                // SAFETY: the same.
                unsafe { multiply_here(Matrix::dense(added, queries, length), table, place) };
            }
        }
    }
}

/// The gradients of what positions add to the scores of a tile that begins with a query, `[query, 2 * side - 1]` for rows
/// and columns.
fn position_gradients(tables: &Tables, gradients: &[f32], keys: usize, first: usize) -> [Vec<f32>; 2] {
    let [high, wide] = tables.grid;
    let queries = gradients.len() / keys;
    let mut added = tables.lengths().map(|length| vec![0f32; queries * length]);
    let [by_row, by_column] = &mut added;
    for (number, gradients) in gradients.chunks_exact(keys).enumerate() {
        let (row, column) = ((first + number) / wide, (first + number) % wide);
        sums_by_row(gradients, wide, &mut by_row[number * (2 * high - 1) + row..][..high]);
        let by_column = &mut by_column[number * (2 * wide - 1) + wide - 1 - column..][..wide];
        sums_by_column(gradients, wide, by_column);
    }
    added
}

/// The tables' gradients by a tile's queries, into the unit's own place.
fn table_gradients(tables: &Tables, added: &[Vec<f32>; 2], q: Matrix, unit: usize, out: [Shared; 2], output: Output) {
    for ((added, length), out) in added.iter().zip(tables.lengths()).zip(out) {
        let place = Place {
            // SAFETY: every unit has its own table.
            out: unsafe { out.from(unit * length * tables.width) },
            stride: tables.width,
            output,
        };
        let added = Matrix::dense(added, added.len() / length, length);
        // SAFETY: the same.
        unsafe { multiply_here(added.transposed(), q, place) };
    }
}

impl Operation<3> for Attention {
    type Kept = Kept<3>;

    fn forward(&self, inputs: &[Values; 3], _: [bool; 3]) -> (Values, Kept<3>) {
        let [q, k, v] = inputs;
        Self::keep(inputs, self.run(q, k, v, &[]))
    }

    fn backward(&self, kept: Kept<3>, gradient: Values, _: [bool; 3]) -> [Option<Values>; 3] {
        self.gradients(kept, &gradient, false).0.map(Some)
    }
}

impl Operation<5> for Attention {
    type Kept = Kept<5>;

    fn forward(&self, inputs: &[Values; 5], _: [bool; 5]) -> (Values, Kept<5>) {
        let [q, k, v, tables @ ..] = inputs;
        Self::keep(inputs, self.run(q, k, v, tables))
    }

    fn backward(&self, kept: Kept<5>, gradient: Values, [.., rows, columns]: [bool; 5]) -> [Option<Values>; 5] {
        let ([q, k, v], positions) = self.gradients(kept, &gradient, rows || columns);
        let mut positions = positions.into_iter();
        [Some(q), Some(k), Some(v), positions.next(), positions.next()]
    }
}

impl Operation<4> for Attention {
    type Kept = Kept<4>;

    fn forward(&self, inputs: &[Values; 4], _: [bool; 4]) -> (Values, Kept<4>) {
        let [q, k, v, positions @ ..] = inputs;
        Self::keep(inputs, self.run(q, k, v, positions))
    }

    fn backward(&self, kept: Kept<4>, gradient: Values, [.., wanted]: [bool; 4]) -> [Option<Values>; 4] {
        let ([q, k, v], positions) = self.gradients(kept, &gradient, wanted);
        [Some(q), Some(k), Some(v), positions.into_iter().next()]
    }
}
