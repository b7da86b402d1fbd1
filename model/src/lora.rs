//! Low-rank adaptation of the query and value projections of one attention (LoRA, several LoRAs, DoRA).

use std::sync::Arc;

use burn::tensor::Tensor;
use flapsam_kernels::{linear, matmul, scale, scale_columns, sigmoid, softmax, sum_rows};

use crate::Error;
use crate::config::{AdapterConfig, LoraInit};
use crate::layers::Linear;
use crate::parameters::{Init, Pair, Projection, Role, Scope, Start};

/// The name of several LoRAs' mixing weights in their attention.
const MIXING: &str = "lora_scale";

/// The adapted `q` and `v` of an attention; `k` stays as it is.
#[derive(Debug, Clone)]
pub struct QueryValueLora {
    /// For the query projection.
    pub query: Lora,
    /// For the value projection.
    pub value: Lora,
}

impl QueryValueLora {
    /// Reads the pairs of an attention whose projections have `inputs` channels in; `query` and `value` say where they are.
    /// `None` where the adapter has no LoRA (rank 0).
    ///
    /// # Errors
    /// A parameter is missing, or of another shape.
    pub fn new(
        scope: &mut Scope,
        config: &AdapterConfig,
        inputs: usize,
        query: Projection,
        value: Projection,
    ) -> Result<Option<Self>, Error> {
        if config.rank == 0 {
            return Ok(None);
        }
        let mut scope = scope.here().start(Start::Drawn);
        let mixing = match config.num_lora {
            1 => None,
            several => {
                let mut scope = scope.here().role(Role::Mixing);
                Some(scope.parameter(MIXING, [several], Init::Constant(1.0))?)
            }
        };
        let mut lora = |letter, changes| Lora::new(&mut scope, config, letter, inputs, changes, mixing.clone());
        Ok(Some(Self {
            query: lora('q', query)?,
            value: lora('v', value)?,
        }))
    }
}

/// The low-rank update of one projection: `scale * sum_i w_i B_i A_i`, with `w = softmax(sigmoid(a))`.
#[derive(Debug, Clone)]
pub struct Lora {
    /// `(A, B)` pairs: `[rank, in]` and `[out, rank]`.
    pairs: Vec<(Tensor<2>, Tensor<2>)>,
    /// The learned vector `a` of several LoRAs, `[pairs]`.
    mixing: Option<Tensor<1>>,
    /// DoRA's magnitude of each input column, `[1, in]`.
    magnitude: Option<Tensor<2>>,
    scale: f64,
}

impl Lora {
    fn new(
        scope: &mut Scope,
        config: &AdapterConfig,
        letter: char,
        inputs: usize,
        changes: Projection,
        mixing: Option<Tensor<1>>,
    ) -> Result<Self, Error> {
        let (rank, outputs) = (config.rank, changes.outputs());
        let b_init = match config.lora_init {
            LoraInit::Zero => Init::Constant(0.0),
            LoraInit::Reference => Init::fan_in(rank),
        };
        let mut pair = |index: usize| {
            let name = |which: char| format!("lora_w_{which}_{letter}.{index}.weight");
            let pair = Arc::new(Pair {
                a: scope.key(name('a')),
                b: scope.key(name('b')),
                changes: changes.clone(),
                mixing: mixing.is_some().then(|| (scope.key(MIXING), index)),
            });
            let mut factor = |which, role, shape, init| scope.here().role(role).parameter(&name(which), shape, init);
            let a = factor('a', Role::LoraA(pair.clone()), [rank, inputs], Init::fan_in(inputs))?;
            let b = factor('b', Role::LoraB(pair), [outputs, rank], b_init)?;
            Ok((a, b))
        };
        let pairs = (0..config.num_lora).map(&mut pair).collect::<Result<_, _>>()?;
        let magnitude = match config.dora {
            true => {
                let role = Role::Magnitude {
                    of: changes,
                    trained: config.train_magnitude,
                };
                let mut scope = scope.here().role(role).start(Start::Norms);
                Some(scope.parameter(&format!("dora_m_{letter}"), [1, inputs], Init::Constant(1.0))?)
            }
            false => None,
        };
        Ok(Self {
            pairs,
            mixing,
            magnitude,
            scale: config.lora_scale,
        })
    }

    /// The adapted projection of `x`, `[.., in]` to `[.., out]`, given the frozen weight `[out, in]` and bias `[out]`.
    pub fn project<const D: usize>(&self, x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
        match &self.magnitude {
            Some(magnitude) => {
                let weight = weight + self.update();
                // The norm of each input column, over the outputs.
                let norm = sum_rows(weight.clone().square()).sqrt();
                let columns = magnitude.clone().squeeze_dim(0) / norm;
                linear(x, scale_columns(weight, columns), bias)
            }
            None => {
                let base = linear(x.clone(), weight, bias);
                self.updates(x)
                    .into_iter()
                    .fold(base, |sum, update| sum + update * self.scale)
            }
        }
    }

    /// [`Lora::project`] for a layer of its own.
    pub fn project_linear<const D: usize>(&self, x: Tensor<D>, layer: &Linear) -> Tensor<D> {
        self.project(x, layer.weight.clone(), layer.bias.clone())
    }

    /// Each pair's `w_i B_i A_i x`.
    fn updates<const D: usize>(&self, x: Tensor<D>) -> Vec<Tensor<D>> {
        let weights = self.weights();
        let update = |(index, (a, b)): (usize, &(Tensor<2>, Tensor<2>))| {
            let update = linear(linear(x.clone(), a.clone(), None), b.clone(), None);
            match &weights {
                Some(weights) => scale(update, weights.clone().narrow(0, index, 1)),
                None => update,
            }
        };
        self.pairs.iter().enumerate().map(update).collect()
    }

    /// `scale * sum_i w_i B_i A_i`, `[out, in]`.
    pub fn update(&self) -> Tensor<2> {
        let weights = self.weights();
        let product = |(index, (a, b)): (usize, &(Tensor<2>, Tensor<2>))| {
            let product = matmul(b.clone(), a.clone());
            match &weights {
                Some(weights) => scale(product, weights.clone().narrow(0, index, 1)),
                None => product,
            }
        };
        let products = self.pairs.iter().enumerate().map(product);
        let sum = products.reduce(|sum, product| sum + product);
        sum.expect("rank 0 has no Lora, and num_lora is at least 1") * self.scale
    }

    fn weights(&self) -> Option<Tensor<1>> {
        let mixing = self.mixing.clone()?;
        Some(softmax(sigmoid(mixing), 0))
    }
}
