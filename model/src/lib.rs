//! Segment Anything with LoRA for 3D medical images.
//!
//! Everything that the native program and the browser share: the network, its adapters, volumes and the one
//! inference path. Bytes in, tensors out: nothing here opens a file, starts a thread or reads a clock.
//!
//! Read in this order: [`config`] says how large a network is, [`parameters`] where its weights come from,
//! [`sam`] is the network, [`method`] says what is trained and sent, [`segment`] applies it to a [`volume`], and
//! [`prompts`] asks it without an adapter.
//!
//! ```
//! use flapsam_model::burn::tensor::Device;
//! use flapsam_model::config::{AdapterConfig, SamConfig};
//! use flapsam_model::method::Method;
//! use flapsam_model::parameters::{Parameters, initialise};
//! use flapsam_model::sam::Sam;
//! use flapsam_model::segment::to_input;
//!
//! # fn main() -> Result<(), flapsam_model::Error> {
//! // The small network, for two classes beside the background, with a LoRA pair of rank 4 at each place.
//! let sam = SamConfig::named("nano").expect("one of the known ones").with_image_size(64);
//! let adapter = AdapterConfig::lora(2, 4);
//! let layout = Sam::layout(&sam, Some(&adapter))?;
//! // What FLAP-SAM trains and sends is a small part of all.
//! assert!(8 * Method::FlapSam.count(&layout) < Method::FullFt.count(&layout));
//!
//! let device = Device::flex();
//! let network = Sam::new(&sam, Some(&adapter), &Parameters::new(&initialise(&layout, 1), &device))?;
//! let slice = to_input(vec![0.5; 64 * 64], 64, &device);
//! let masks = network.to_image_size(network.logits(slice));
//! // One mask of the image's size for each class, the background's first.
//! assert_eq!(masks.dims(), [1, 3, 64, 64]);
//! # Ok(())
//! # }
//! ```

pub mod adapter;
pub mod checkpoint;
pub mod config;
mod error;
pub mod foreign;
pub mod image_encoder;
pub mod labels;
pub mod layers;
pub mod lora;
pub mod mask_decoder;
pub mod memory;
pub mod merge;
pub mod method;
pub mod parameters;
pub mod preprocessing;
pub mod prompt_encoder;
pub mod prompts;
pub mod random;
pub mod resize;
pub mod sam;
pub mod segment;
pub mod self_test;
pub mod transformer;
pub mod volume;

pub use burn;
pub use error::Error;
