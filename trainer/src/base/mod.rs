//! Base checkpoints: which network one holds, how far two are apart, and one that comes as ONNX.

pub mod difference;
pub mod mobile_sam;
pub mod network;
mod onnx;
