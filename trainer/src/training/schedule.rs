use flapsam_kernels::elementary::power;
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
    pub lr_exp: u32,
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
        self.base_lr * power((1.0 - done).max(0.0), self.lr_exp as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_then_decay() {
        let schedule = Schedule {
            base_lr: 8e-4,
            warmup_period: 250,
            max_iterations: 1000,
            lr_exp: 7,
        };
        assert_eq!(schedule.rate(0), 8e-4 / 250.0);
        assert_eq!(schedule.rate(1), 8e-4 / 250.0);
        assert_eq!(schedule.rate(250), 8e-4);
        let halfway = schedule.rate(251 + 500);
        assert!((halfway - 8e-4 * 0.5f64.powi(7)).abs() < 1e-12, "{halfway}");
        assert_eq!(schedule.rate(10_000), 0.0);
    }
}
