use serde::{Deserialize, Serialize};

/// Learning rate by step: a linear warm-up, then polynomial decay (method section "Training").
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest rate.
    pub base_lr: f64,
    /// Steps of warm-up, at least 1.
    pub warmup_period: usize,
    /// Steps after the warm-up until the rate would be zero.
    pub max_iterations: usize,
    /// Exponent of the decay.
    pub lr_exp: i32,
}

impl Schedule {
    /// The rate that step `step` (from 0) uses. A rate computed after one step takes effect in the next; the very
    /// first step uses the first rate of the warm-up.
    pub fn rate(&self, step: usize) -> f64 {
        let computed_after = step.saturating_sub(1);
        if computed_after < self.warmup_period {
            return self.base_lr * (computed_after + 1) as f64 / self.warmup_period as f64;
        }
        let done = (computed_after - self.warmup_period) as f64 / self.max_iterations as f64;
        self.base_lr * (1.0 - done).max(0.0).powi(self.lr_exp)
    }
}
