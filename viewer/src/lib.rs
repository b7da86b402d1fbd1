//! Segments a scan in the browser, with the network and the one inference path of the native program.
//!
//! Bytes come from the page and go back to it; nothing is sent anywhere. [`device`] decides where to compute,
//! [`network`] checks and loads a base and its adapter and segments a scan, [`comparison`] judges the result, [`prompting`]
//! asks a base alone by clicks and boxes, and [`correcting`] makes masks of what users draw and keep. All of it compiles
//! natively too, where it is tested; the bindings to JavaScript are the module `browser`.

#[cfg(target_arch = "wasm32")]
mod browser;
pub mod comparison;
pub mod correcting;
pub mod device;
mod error;
pub mod network;
pub mod promised;
pub mod prompting;

pub use error::Error;
