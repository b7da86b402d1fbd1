use serde::{Deserialize, Serialize};

/// The server's own optimizer: it takes the way from its last state to the clients' mean as a gradient (FedAdam,
/// arXiv 2003.00295, algorithm 2; defaults of its section 5).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerAdam {
    /// How far a round moves.
    pub rate: f64,
    /// How much of the last rounds' direction is kept.
    #[serde(default = "beta_1")]
    pub beta_1: f64,
    /// How much of the last rounds' spread is kept.
    #[serde(default = "beta_2")]
    pub beta_2: f64,
    /// Keeps small spreads from making large steps.
    #[serde(default = "tau")]
    pub tau: f64,
}

impl ServerAdam {
    /// What makes no sense in it.
    pub fn mistake(&self) -> Option<String> {
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let settings = [
            ("rate", self.rate, above_zero(self.rate), "above 0"),
            ("beta_1", self.beta_1, below_one(self.beta_1), "from 0 to below 1"),
            ("beta_2", self.beta_2, below_one(self.beta_2), "from 0 to below 1"),
            ("tau", self.tau, above_zero(self.tau), "above 0"),
        ];
        let wrong = settings.iter().find(|(_, _, right, _)| !right);
        wrong.map(|(key, value, _, must)| format!("'server_adam.{key}' is {value}; it must be {must}"))
    }
}

fn beta_1() -> f64 {
    0.9
}

fn beta_2() -> f64 {
    0.99
}

fn tau() -> f64 {
    1e-3
}
