//! The two-way transformer of SAM's mask decoder: tokens attend to the image, and the image to the tokens.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use flapsam_kernels::attention;

use crate::Error;
use crate::config::{AdapterConfig, SamConfig};
use crate::layers::{LayerNorm, Linear};
use crate::lora::QueryValueLora;
use crate::parameters::{Projection, Role, Scope};

const DEPTH: usize = 2;
const EPSILON: f64 = 1e-5;

/// Two layers and a last attention from the tokens to the image.
#[derive(Debug, Clone)]
pub struct TwoWayTransformer {
    layers: Vec<TwoWayLayer>,
    final_attn_token_to_image: Attention,
    norm_final_attn: LayerNorm,
}

impl TwoWayTransformer {
    /// Builds the transformer; with an adapter, its attentions are adapted.
    pub fn new(scope: &mut Scope, config: &SamConfig, adapter: Option<&AdapterConfig>) -> Result<Self, Error> {
        let layers = (0..DEPTH).map(|index| {
            let mut scope = scope.at("layers");
            TwoWayLayer::new(&mut scope.at(index), config, adapter, index == 0)
        });
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            final_attn_token_to_image: Attention::new(&mut scope.at("final_attn_token_to_image"), config, adapter, 2)?,
            norm_final_attn: LayerNorm::new(&mut scope.at("norm_final_attn"), config.prompt_dim, EPSILON)?,
        })
    }

    /// Tokens `[batch, token, channel]`, image and its positions `[batch or 1, place, channel]`;
    /// returns the new tokens and the new image.
    pub fn forward(&self, tokens: Tensor<3>, image: Tensor<3>, positions: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let state = (tokens.clone(), image);
        let (queries, keys) = self.layers.iter().fold(state, |(queries, keys), layer| {
            layer.forward(queries, keys, tokens.clone(), positions.clone())
        });
        let q = queries.clone() + tokens;
        let k = keys.clone() + positions;
        let attended = self.final_attn_token_to_image.forward(q, k, keys.clone());
        (self.norm_final_attn.forward(queries + attended), keys)
    }
}

#[derive(Debug, Clone)]
struct TwoWayLayer {
    self_attn: Attention,
    norm1: LayerNorm,
    cross_attn_token_to_image: Attention,
    norm2: LayerNorm,
    lin1: Linear,
    lin2: Linear,
    norm3: LayerNorm,
    norm4: LayerNorm,
    cross_attn_image_to_token: Attention,
    /// The first layer's self-attention adds no positions and replaces the queries.
    first: bool,
}

impl TwoWayLayer {
    fn new(scope: &mut Scope, config: &SamConfig, adapter: Option<&AdapterConfig>, first: bool) -> Result<Self, Error> {
        let dim = config.prompt_dim;
        let hidden = config.decoder_mlp_dim;
        let mut attention = |name, downsample| Attention::new(&mut scope.at(name), config, adapter, downsample);
        let self_attn = attention("self_attn", 1)?;
        let cross_attn_token_to_image = attention("cross_attn_token_to_image", 2)?;
        let cross_attn_image_to_token = attention("cross_attn_image_to_token", 2)?;
        let mut norm = |name| LayerNorm::new(&mut scope.at(name), dim, EPSILON);
        Ok(Self {
            self_attn,
            cross_attn_token_to_image,
            cross_attn_image_to_token,
            norm1: norm("norm1")?,
            norm2: norm("norm2")?,
            norm3: norm("norm3")?,
            norm4: norm("norm4")?,
            lin1: Linear::new(&mut scope.at("mlp").at("lin1"), dim, hidden)?,
            lin2: Linear::new(&mut scope.at("mlp").at("lin2"), hidden, dim)?,
            first,
        })
    }

    fn forward(
        &self,
        queries: Tensor<3>,
        keys: Tensor<3>,
        tokens: Tensor<3>,
        positions: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let queries = if self.first {
            self.self_attn.forward(queries.clone(), queries.clone(), queries)
        } else {
            let q = queries.clone() + tokens.clone();
            queries.clone() + self.self_attn.forward(q.clone(), q, queries)
        };
        let queries = self.norm1.forward(queries);

        let q = queries.clone() + tokens.clone();
        let k = keys.clone() + positions.clone();
        let attended = self.cross_attn_token_to_image.forward(q, k.clone(), keys.clone());
        let queries = self.norm2.forward(queries + attended);

        let hidden = relu(self.lin1.forward(queries.clone()));
        let queries = self.norm3.forward(queries + self.lin2.forward(hidden));

        let q = queries.clone() + tokens;
        let attended = self.cross_attn_image_to_token.forward(k, q, queries.clone());
        let keys = self.norm4.forward(keys + attended);
        (queries, keys)
    }
}

/// Multi-head attention with projections to `prompt_dim / downsample` channels.
#[derive(Debug, Clone)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    lora: Option<QueryValueLora>,
    heads: usize,
}

impl Attention {
    fn new(
        scope: &mut Scope,
        config: &SamConfig,
        adapter: Option<&AdapterConfig>,
        downsample: usize,
    ) -> Result<Self, Error> {
        let dim = config.prompt_dim;
        let inner = dim / downsample;
        let mut scope = scope.here().role(Role::Attention);
        let whole = |name: &str| Projection::new(scope.key(name), 0, inner);
        let (query, value) = (whole("q_proj.weight"), whole("v_proj.weight"));
        Ok(Self {
            q_proj: Linear::new(&mut scope.at("q_proj"), dim, inner)?,
            k_proj: Linear::new(&mut scope.at("k_proj"), dim, inner)?,
            v_proj: Linear::new(&mut scope.at("v_proj"), dim, inner)?,
            out_proj: Linear::new(&mut scope.at("out_proj"), inner, dim)?,
            lora: match adapter {
                Some(adapter) => QueryValueLora::new(&mut scope, adapter, dim, query, value)?,
                None => None,
            },
            heads: config.decoder_heads,
        })
    }

    /// `[batch, query, channel]`, `[batch, key, channel]` twice; to `[batch, query, channel]`.
    fn forward(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        let (q, v) = match &self.lora {
            Some(lora) => (
                lora.query.project_linear(q, &self.q_proj),
                lora.value.project_linear(v, &self.v_proj),
            ),
            None => (self.q_proj.forward(q), self.v_proj.forward(v)),
        };
        let k = self.k_proj.forward(k);
        let scale = 1.0 / ((k.dims()[2] / self.heads) as f64).sqrt();
        let x = attention([q, k, v], self.heads, scale, None);
        self.out_proj.forward(x)
    }
}
