//! Where a network's weights come from.
//!
//! A [`StateDict`] holds them on the host under SAM's own names: that is what is read, averaged and sent.
//! [`Parameters`] holds them on a device, each as a flat vector with its shape, so that an optimizer or a
//! federation treats all alike. Networks are cheap views of [`Parameters`], built anew for every step through a
//! [`Scope`]; the same code, run on a scope that only declares, yields the [`Layout`]: every name, shape and
//! initial distribution, without any weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};

use crate::Error;
use crate::random::Random;

/// A tensor on the host, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub values: Vec<f32>,
}

impl Array {
    /// # Panics
    /// If the number of values is not the product of the shape (a programming error).
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { shape, values }
    }
}

/// Tensors on the host by SAM's own names.
pub type StateDict = BTreeMap<String, Array>;

/// How a parameter starts when no checkpoint gives it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same value.
    Constant(f32),
    /// Uniform in `[-bound, bound)`.
    Uniform(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
}

impl Init {
    /// PyTorch's default for linear and convolution layers.
    pub fn fan_in(fan_in: usize) -> Self {
        Init::Uniform(1.0 / (fan_in as f32).sqrt())
    }

    fn draw(self, count: usize, random: &mut Random) -> Vec<f32> {
        let mut value = || match self {
            Init::Constant(value) => value,
            Init::Uniform(bound) => random.uniform(-bound as f64, bound as f64) as f32,
            Init::Normal { std } => (random.normal() * std as f64) as f32,
        };
        (0..count).map(|_| value()).collect()
    }
}

/// One of the three networks that SAM is made of. Its parameters' names begin with its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Images to embeddings.
    ImageEncoder,
    /// Clicks and boxes to embeddings.
    PromptEncoder,
    /// Embeddings to masks.
    MaskDecoder,
}

impl Part {
    /// All three.
    pub const ALL: [Part; 3] = [Part::ImageEncoder, Part::PromptEncoder, Part::MaskDecoder];

    /// Whether it has the parameter of that name.
    pub fn holds(self, key: &str) -> bool {
        key.split('.').next() == Some(self.name())
    }

    /// The name in state dicts.
    pub fn name(self) -> &'static str {
        match self {
            Part::ImageEncoder => "image_encoder",
            Part::PromptEncoder => "prompt_encoder",
            Part::MaskDecoder => "mask_decoder",
        }
    }
}

/// A query's or value's projection: rows of an attention's weight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Projection {
    /// The weight's name, `[.., in]`.
    pub weight: String,
    /// The projection's rows in it, in the order of its outputs: ranges `[first, end)`.
    pub rows: Vec<[usize; 2]>,
}

impl Projection {
    /// A weight's rows from `first` to before `end`.
    pub fn new(weight: String, first: usize, end: usize) -> Self {
        Self {
            weight,
            rows: vec![[first, end]],
        }
    }

    /// How many outputs it has.
    pub fn outputs(&self) -> usize {
        self.rows.iter().map(|[first, end]| end - first).sum()
    }

    /// The projection's part of the weight's values, row by row, each of `inputs` values.
    pub fn rows_of<'a>(&self, values: &'a [f32], inputs: usize) -> impl Iterator<Item = &'a [f32]> {
        let blocks = self
            .rows
            .iter()
            .map(move |[first, end]| &values[first * inputs..end * inputs]);
        blocks.flat_map(move |block| block.chunks_exact(inputs))
    }

    /// [`Projection::rows_of`], to be changed.
    pub fn rows_of_mut<'a>(&self, values: &'a mut [f32], inputs: usize) -> impl Iterator<Item = &'a mut [f32]> {
        let inside = |row: usize| self.rows.iter().position(|[first, end]| (*first..*end).contains(&row));
        let rows = values.chunks_exact_mut(inputs).enumerate();
        let mut rows: Vec<_> = rows
            .filter_map(|(number, row)| Some(((inside(number)?, number), row)))
            .collect();
        rows.sort_by_key(|(place, _)| *place);
        rows.into_iter().map(|(_, row)| row)
    }
}

/// A low-rank pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The first factor's name, A `[rank, in]`.
    pub a: String,
    /// The second factor's name, B `[out, rank]`.
    pub b: String,
    /// What the product B A is added to.
    pub changes: Projection,
    /// With several pairs: the name of their mixing weights, and this one's place in them.
    pub mixing: Option<(String, usize)>,
}

/// What a parameter is in its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// SAM's own, neither in an attention nor in a head.
    Base,
    /// SAM's own, in an attention.
    Attention,
    /// In the decoder's upscaling, hypernetworks or mask tokens: what must be trained for a new set of classes.
    Head,
    /// A pair's first factor.
    LoraA(Arc<Pair>),
    /// A pair's second factor.
    LoraB(Arc<Pair>),
    /// The weights that mix several LoRAs: trained, but personal; they are never sent.
    Mixing,
    /// DoRA's magnitudes of a projection's input columns.
    Magnitude {
        /// Whose.
        of: Projection,
        /// Trained wherever LoRA pairs are. In the reference the LoRA methods leave them as they start (its counts and
        /// four-step fixtures say so).
        trained: bool,
    },
    /// Saved with the network, never trained (PyTorch's buffers).
    Constant,
}

impl Role {
    /// The pair that the parameter is a factor of.
    pub fn pair(&self) -> Option<&Pair> {
        match self {
            Role::LoraA(pair) | Role::LoraB(pair) => Some(pair),
            _ => None,
        }
    }

    /// Whether it belongs to LoRA pairs: a factor, or the weights that mix them.
    pub fn is_lora(&self) -> bool {
        matches!(self, Role::LoraA(_) | Role::LoraB(_) | Role::Mixing)
    }
}

/// What a network makes of an official checkpoint for a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// It takes what the checkpoint has.
    Official,
    /// A table of positions, resized to the network's own.
    Resized,
    /// A convolution's weight or its norm's bias, of a convolution and a batch norm that are folded into one: the weight times
    /// the norm's factor for each output, and the norm's bias less the mean times that factor.
    Folded {
        /// The name of the convolution's weight.
        conv: String,
        /// Where the norm's weight, bias, `running_mean` and `running_var` are.
        norm: String,
    },
    /// The norms of the adapted weight's columns, for DoRA.
    Norms,
    /// Nothing: it is drawn.
    Drawn,
}

/// One entry of a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// How it is drawn.
    pub init: Init,
    /// Where it belongs.
    pub part: Part,
    /// What it is.
    pub role: Role,
    /// What an official checkpoint gives for it.
    pub start: Start,
}

impl Spec {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().copied().fold(1, usize::saturating_mul)
    }
}

/// Every parameter of a network: names, shapes, starts.
pub type Layout = BTreeMap<String, Spec>;

/// The low-rank pairs of a network.
pub fn pairs(layout: &Layout) -> impl Iterator<Item = &Pair> {
    layout.values().filter_map(|spec| match &spec.role {
        Role::LoraA(pair) => Some(&**pair),
        _ => None,
    })
}

/// Draws one parameter. Each name has its own stream, so that one more parameter changes no other.
pub fn initial(key: &str, spec: &Spec, seed: u64) -> Array {
    let mut random = Random::new(seed, key);
    Array::new(spec.shape.clone(), spec.init.draw(spec.count(), &mut random))
}

/// Draws every parameter of a layout.
pub fn initialise(layout: &Layout, seed: u64) -> StateDict {
    layout
        .iter()
        .map(|(key, spec)| (key.clone(), initial(key, spec, seed)))
        .collect()
}

/// Refuses a state that lacks one of a layout's parameters, has one of another shape, or has one more. `network` says
/// whose layout it is.
pub fn check(state: &StateDict, layout: &Layout, network: &str) -> Result<(), Error> {
    for (key, spec) in layout {
        match state.get(key) {
            None => {
                return Err(Error::MissingParameter {
                    key: key.clone(),
                    network: network.into(),
                });
            }
            Some(array) if array.shape != spec.shape => {
                return Err(Error::Shape {
                    key: key.clone(),
                    expected: spec.shape.clone(),
                    found: array.shape.clone(),
                });
            }
            Some(_) => (),
        }
    }
    match state.keys().find(|key| !layout.contains_key(*key)) {
        Some(key) => Err(Error::UnknownParameter { key: key.clone() }),
        None => Ok(()),
    }
}

/// The one tensor that stays on the host: frequencies, of which sines are taken. Those of graphics hardware are too coarse
/// (WGSL lets them be 2^-11 off, and more far from zero).
pub(crate) const ON_HOST: &str = "positional_encoding_gaussian_matrix";

/// A parameter on a device.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// All values in a row.
    pub flat: Tensor<1>,
    /// Their shape.
    pub shape: Vec<usize>,
}

/// A network's weights on a device.
#[derive(Debug, Clone)]
pub struct Parameters {
    tensors: BTreeMap<String, Parameter>,
}

impl Parameters {
    /// Copies a state dict to a device, but for what stays on the host. Nothing is trainable yet.
    pub fn new(state: &StateDict, device: &Device) -> Self {
        let mut parameters = Self {
            tensors: BTreeMap::new(),
        };
        parameters.load(state, device);
        parameters
    }

    /// Puts the given tensors in place of those of the same name, or adds them. They are no longer trainable.
    pub fn load(&mut self, state: &StateDict, device: &Device) {
        let host = Device::flex();
        for (key, array) in state {
            let data = TensorData::new(array.values.clone(), [array.values.len()]);
            let device = if key.ends_with(ON_HOST) { &host } else { device };
            let parameter = Parameter {
                flat: Tensor::from_data(data, device),
                shape: array.shape.clone(),
            };
            self.tensors.insert(key.clone(), parameter);
        }
    }

    /// Makes exactly these leaves of the autodiff graph. The others stay outside it: they cost no gradient.
    pub fn require_grad(&mut self, keys: &BTreeSet<String>) {
        for (key, parameter) in &mut self.tensors {
            let flat = parameter.flat.clone().without_autodiff();
            parameter.flat = match keys.contains(key) {
                true => flat.autodiff().require_grad(),
                false => flat,
            };
        }
    }

    /// The same weights outside the autodiff graph, for inference.
    pub fn without_autodiff(&self) -> Self {
        let tensors = self.tensors.iter().map(|(key, parameter)| {
            let frozen = Parameter {
                flat: parameter.flat.clone().without_autodiff(),
                shape: parameter.shape.clone(),
            };
            (key.clone(), frozen)
        });
        Self {
            tensors: tensors.collect(),
        }
    }

    /// The parameter of that name.
    pub fn get(&self, key: &str) -> Option<&Parameter> {
        self.tensors.get(key)
    }

    /// Every name.
    pub fn keys(&self) -> BTreeSet<String> {
        self.tensors.keys().cloned().collect()
    }

    /// All parameters by name.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut Parameter)> {
        self.tensors.iter_mut()
    }

    /// Copies the named parameters back to the host.
    pub fn state(&self, keys: &BTreeSet<String>) -> StateDict {
        let selected = self.tensors.iter().filter(|(key, _)| keys.contains(*key));
        selected
            .map(|(key, parameter)| {
                let values = to_vec(parameter.flat.clone());
                (key.clone(), Array::new(parameter.shape.clone(), values))
            })
            .collect()
    }
}

/// Reads a tensor back to the host as `f32`, row-major.
pub fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor
        .try_into_vec_as::<f32>()
        .expect("floats are f32 on every device that this project opens")
}

/// Where a network's layers get their parameters from.
#[derive(Debug)]
pub enum Source<'a> {
    /// Weights on a device.
    Read(&'a Parameters),
    /// None: the network only says what it would need. Its tensors are zeros without memory.
    Declare(&'a mut Layout, Device),
}

impl<'a> Source<'a> {
    /// Declares into a layout.
    pub fn declare(layout: &'a mut Layout) -> Self {
        Source::Declare(layout, Device::flex())
    }

    /// One of the networks that SAM is made of.
    pub fn part(&mut self, part: Part) -> Scope<'_> {
        Scope {
            source: self.again(),
            prefix: format!("{}.", part.name()),
            part,
            role: Role::Base,
            start: Start::Official,
        }
    }

    fn again(&mut self) -> Source<'_> {
        match self {
            Source::Read(parameters) => Source::Read(parameters),
            Source::Declare(layout, device) => Source::Declare(layout, device.clone()),
        }
    }
}

/// A place in the tree of parameters, from which a layer takes its own by name. What is taken has the scope's role and start.
#[derive(Debug)]
pub struct Scope<'a> {
    source: Source<'a>,
    prefix: String,
    part: Part,
    role: Role,
    start: Start,
}

impl Scope<'_> {
    /// This scope, for parameters of another role or start than its own.
    pub fn here(&mut self) -> Scope<'_> {
        Scope {
            source: self.source.again(),
            prefix: self.prefix.clone(),
            part: self.part,
            role: self.role.clone(),
            start: self.start.clone(),
        }
    }

    /// The scope called `name` below this one.
    pub fn at(&mut self, name: impl Display) -> Scope<'_> {
        let mut below = self.here();
        below.prefix = format!("{}{name}.", below.prefix);
        below
    }

    /// From here on, parameters have this role.
    pub fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// From here on, parameters start like this.
    pub fn start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// The whole name of the parameter called `name` here.
    pub fn key(&self, name: impl Display) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The parameter called `name` here.
    ///
    /// # Errors
    /// It is missing, or of another shape.
    pub fn parameter<const D: usize>(&mut self, name: &str, shape: [usize; D], init: Init) -> Result<Tensor<D>, Error> {
        self.parameter_as(name, shape, shape, init)
    }

    /// The parameter called `name` here, seen in another shape of as many values. A declared tensor has that shape from the
    /// start: reshaping it would take the memory of all its values.
    ///
    /// # Errors
    /// See [`Scope::parameter`].
    pub fn parameter_as<const D: usize, const E: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        seen: [usize; E],
        init: Init,
    ) -> Result<Tensor<E>, Error> {
        let key = self.key(name);
        match &mut self.source {
            Source::Read(parameters) => {
                let Some(parameter) = parameters.get(&key) else {
                    return Err(Error::MissingParameter {
                        key,
                        network: "network of this configuration".into(),
                    });
                };
                if parameter.shape != shape {
                    return Err(Error::Shape {
                        key,
                        expected: shape.into(),
                        found: parameter.shape.clone(),
                    });
                }
                Ok(parameter.flat.clone().reshape(seen))
            }
            Source::Declare(layout, device) => {
                let spec = Spec {
                    shape: shape.into(),
                    init,
                    part: self.part,
                    role: self.role.clone(),
                    start: self.start.clone(),
                };
                layout.insert(key, spec);
                Ok(Tensor::<E>::zeros([1; E], &*device).expand(seen))
            }
        }
    }
}
