//! Low-rank adaptation of the query and value projections of one attention (LoRA, several LoRAs, DoRA).

use burn::tensor::Tensor;
use flapsam_kernels::{linear, matmul, scale, scale_columns, sigmoid, softmax, sum_rows};

use crate::Error;
use crate::config::{AdapterConfig, LoraInit};
use crate::layers::Linear;
use crate::parameters::{Init, Scope};

/// The adapted `q` and `v` of an attention; `k` stays as it is.
#[derive(Debug, Clone)]
pub struct QueryValueLora {
    /// For the query projection.
    pub query: Lora,
    /// For the value projection.
    pub value: Lora,
}

impl QueryValueLora {
    /// Reads the pairs of an attention whose projections go from `inputs` to `outputs` channels.
    /// `None` where the adapter has no LoRA (rank 0).
    pub fn new(
        scope: &mut Scope,
        config: &AdapterConfig,
        inputs: usize,
        outputs: usize,
    ) -> Result<Option<Self>, Error> {
        if config.rank == 0 {
            return Ok(None);
        }
        let mixing = match config.num_lora {
            1 => None,
            several => Some(scope.parameter("lora_scale", [several], Init::Constant(1.0))?),
        };
        let mut lora = |letter| Lora::new(scope, config, letter, inputs, outputs, mixing.clone());
        Ok(Some(Self {
            query: lora('q')?,
            value: lora('v')?,
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
        outputs: usize,
        mixing: Option<Tensor<1>>,
    ) -> Result<Self, Error> {
        let rank = config.rank;
        let b_init = match config.lora_init {
            LoraInit::Zero => Init::Constant(0.0),
            LoraInit::Reference => Init::fan_in(rank),
        };
        let mut pair = |index| {
            let mut factor = |which, shape, init| {
                let name = format!("lora_w_{which}_{letter}");
                scope.at(name).at(index).parameter("weight", shape, init)
            };
            let a = factor('a', [rank, inputs], Init::fan_in(inputs))?;
            let b = factor('b', [outputs, rank], b_init)?;
            Ok((a, b))
        };
        let pairs = (0..config.num_lora).map(&mut pair).collect::<Result<_, _>>()?;
        let magnitude = match config.dora {
            // A fresh magnitude is the norm of the base weight's columns; `checkpoint::adapt` sets it.
            true => {
                let name = format!("dora_m_{letter}");
                let (shape, init) = ([1, inputs], Init::Constant(1.0));
                Some(match config.train_magnitude {
                    true => scope.beside_lora(&name, shape, init)?,
                    false => scope.parameter(&name, shape, init)?,
                })
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
