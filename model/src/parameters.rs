//! Where a network's weights come from.
//!
//! A [`StateDict`] holds them on the host under SAM's own names: that is what is read, averaged and sent.
//! [`Parameters`] holds them on a device, each as a flat vector with its shape, so that an optimizer or a
//! federation treats all alike. Networks are cheap views of [`Parameters`], built anew for every step through a
//! [`Scope`]; the same code, run on a scope that only declares, yields the [`Layout`]: every name, shape and
//! initial distribution, without any weights.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

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

/// One entry of a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// When it is trained.
    pub training: Training,
}

/// When a parameter is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// As the method decides by its name.
    ByMethod,
    /// Wherever LoRA pairs are.
    WithLora,
    /// Never: part of the state dict only (PyTorch's buffers).
    Never,
}

impl Spec {
    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().copied().fold(1, usize::saturating_mul)
    }
}

/// Every parameter of a network: names, shapes, starts.
pub type Layout = BTreeMap<String, Spec>;

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

enum Source<'a> {
    Read(&'a Parameters),
    Declare(&'a mut Layout, Device),
}

/// A place in the tree of parameters, from which a layer takes its own by name.
pub struct Scope<'a> {
    source: Source<'a>,
    prefix: String,
}

impl<'a> Scope<'a> {
    /// The root of a network that reads its weights.
    pub fn read(parameters: &'a Parameters) -> Self {
        Self {
            source: Source::Read(parameters),
            prefix: String::new(),
        }
    }

    /// The root of a network that only says what it would need. Its tensors are zeros without memory.
    pub fn declare(layout: &'a mut Layout) -> Self {
        Self {
            source: Source::Declare(layout, Device::flex()),
            prefix: String::new(),
        }
    }

    /// The scope called `name` below this one.
    pub fn at(&mut self, name: impl Display) -> Scope<'_> {
        let source = match &mut self.source {
            Source::Read(parameters) => Source::Read(parameters),
            Source::Declare(layout, device) => Source::Declare(layout, device.clone()),
        };
        Scope {
            source,
            prefix: format!("{}{name}.", self.prefix),
        }
    }

    /// The parameter called `name` here.
    pub fn parameter<const D: usize>(&mut self, name: &str, shape: [usize; D], init: Init) -> Result<Tensor<D>, Error> {
        self.take(name, shape, shape, init, Training::ByMethod)
    }

    /// The parameter called `name` here, seen in another shape of as many values.
    pub fn parameter_as<const D: usize, const E: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        seen: [usize; E],
        init: Init,
    ) -> Result<Tensor<E>, Error> {
        self.take(name, shape, seen, init, Training::ByMethod)
    }

    /// The parameter called `name` here, which is trained wherever LoRA pairs are.
    pub fn beside_lora<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Tensor<D>, Error> {
        self.take(name, shape, shape, init, Training::WithLora)
    }

    /// The constant called `name` here: saved with the network, never trained.
    pub fn buffer<const D: usize>(&mut self, name: &str, shape: [usize; D], init: Init) -> Result<Tensor<D>, Error> {
        self.take(name, shape, shape, init, Training::Never)
    }

    /// A declared tensor has its last shape from the start: reshaping it would take the memory of all its values.
    fn take<const D: usize, const E: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        seen: [usize; E],
        init: Init,
        training: Training,
    ) -> Result<Tensor<E>, Error> {
        let key = format!("{}{name}", self.prefix);
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
                    training,
                };
                layout.insert(key, spec);
                Ok(Tensor::<E>::zeros([1; E], &*device).expand(seen))
            }
        }
    }
}
