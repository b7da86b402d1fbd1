//! Segment Anything with LoRA for 3D medical images.
//!
//! Everything that the native program and the browser share: the network, its adapters, volumes and the one
//! inference path. Bytes in, tensors out: nothing here opens a file, starts a thread or reads a clock.
//!
//! Read in this order: [`config`] says how large a network is, [`parameters`] where its weights come from,
//! [`sam`] is the network, [`method`] says what is trained and sent, [`segment`] applies it to a [`volume`], and
//! [`prompts`] asks it without an adapter.

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
