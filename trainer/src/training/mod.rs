//! One client's training: the loss, the schedule, the optimizer, a step.

mod adamw;
mod embeddings;
mod learner;
mod loss;
mod pretraining;
mod schedule;

pub use adamw::{AdamW, OptimizerState};
pub use learner::Learner;
pub use loss::{Loss, loss};
pub use pretraining::Pretraining;
pub use schedule::Schedule;
