//! The operations that round, with the order of every sum written down.
//!
//! # The contract
//!
//! On the CPU every result has the same bits on every processor, with any caches and any number of threads, since what
//! is computed depends on the shapes alone:
//!
//! - **Products** ([`matmul`], [`linear`], the attention's and the convolution's). For every output element, products are
//!   accumulated in order of k, in blocks of [`product::BLOCK`], each from zero and with fused multiply-add; block sums
//!   are added in order. Biases and residuals are added last.
//! - **Sums along a line** (norms, softmax, the loss): element i goes to lane i modulo [`sums::LANES`], each lane sums in
//!   order, and the lanes are added as a tree, halves onto halves.
//! - **Sums down columns** (gradients of biases and norms): in order of rows, in blocks of [`sums::ROWS`], each from zero;
//!   block sums are added in order.
//! - **exp, ln, erf** are the polynomials of [`elementary`], and nothing comes from the system's mathematical library.
//! - SIMD lanes and threads divide outputs, never a sum.
//!
//! All but the products' tiles is plain Rust: IEEE arithmetic and [`f32::mul_add`], which Rust neither reorders nor contracts.
//! The tiles name the processor's registers and their fused multiply-add, which is the same operation. Each function is
//! compiled for several instruction sets ([`vectorised`](self)), which changes how many outputs are computed at once and
//! nothing else. A processor without fused multiply-add computes it in software: the same bits, many times slower.
//! WebAssembly has none, so that there products are rounded before they are added.
//!
//! # The rooms
//!
//! [`product`], [`sums`] and [`elementary`] work on slices. The others are the network's operations, one a file, with their
//! gradients: functions of burn's tensors, which take burn's own operations on every device but the CPU.

#[macro_use]
mod vectorised;
mod activation;
mod adamw;
mod arrange;
mod attention;
mod convolution;
mod depthwise;
pub mod elementary;
mod elements;
mod linear;
mod loss;
mod neighbourhood;
mod norm;
mod operation;
pub mod product;
mod resize;
pub mod sums;
mod threads;

pub use activation::{gelu, sigmoid, softmax};
pub use adamw::{State, Step, adamw, not_finite};
pub use arrange::arrange;
pub use attention::{Positions, attention};
pub use convolution::conv3x3;
pub use depthwise::depthwise3x3;
pub use linear::{add_row, linear, matmul, matmul_transposed, scale, scale_columns, sum_rows};
pub use loss::{Share, cross_entropy_and_dice};
pub use norm::layer_norm;
pub use resize::{Alignment, resize_bilinear};
pub use threads::{Worker, in_turn};
pub use vectorised::Level;
