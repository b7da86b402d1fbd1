//! What makes no sense in an experiment's settings.

use flapsam_model::method::Method;

use super::config::{Experiment, Setting};
use crate::federation::wire::Precision;
use crate::federation::{Aggregation, Privacy, Robust, ServerAdam};

impl Experiment {
    /// What makes no sense in it. Of several mistakes it is the first, in this order of asking.
    pub(super) fn mistake(&self) -> Option<String> {
        let questions: [fn(&Self) -> Option<String>; _] = [
            Self::mistake_about_counts,
            Self::mistake_about_seeds,
            Self::mistake_about_ranks,
            Self::mistake_about_setting,
            |experiment| experiment.server_adam.as_ref().and_then(ServerAdam::mistake),
            |experiment| experiment.privacy.as_ref().and_then(Privacy::mistake),
            Self::mistake_about_bad_clients,
            Self::mistake_about_secrecy,
            Self::mistake_about_patients,
            Self::mistake_about_leaving_out,
            Self::mistake_about_participation,
            Self::mistake_about_measures,
            Self::mistake_about_aggregation,
        ];
        questions.iter().find_map(|question| question(self))
    }

    /// What is counted and must be there at all.
    fn mistake_about_counts(&self) -> Option<String> {
        let positive = [
            ("image_size", self.image_size),
            ("rounds", self.rounds),
            ("seeds", self.seeds.len()),
            ("num_lora", self.num_lora),
            ("local.batch_stacks", self.local.batch_stacks),
            ("local.stack_stride", self.local.stack_stride),
            ("schedule.warmup_period", self.schedule.warmup_period),
            ("schedule.max_iterations", self.schedule.max_iterations.unwrap_or(1)),
            ("schedule.max_epochs", self.schedule.max_epochs.unwrap_or(1)),
            ("dice_every", self.dice_every.unwrap_or(1)),
            (
                "cases_per_site",
                self.cases_per_site.map_or(1, |[train, test]| train.min(test)),
            ),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Some(format!("'{key}' must be at least 1"));
        }
        if self.method.uses_lora() && self.rank == 0 {
            return Some("'rank' must be at least 1 for a method with LoRA".into());
        }
        None
    }

    fn mistake_about_seeds(&self) -> Option<String> {
        let twice = self.seeds.iter().enumerate().find_map(|(place, seed)| {
            let earlier = &self.seeds[..place];
            earlier.contains(seed).then_some(seed)
        });
        twice.map(|seed| format!("'seeds' has {seed} twice"))
    }

    /// What makes no sense in the ranks of single sites.
    fn mistake_about_ranks(&self) -> Option<String> {
        if let Some((site, rank)) = self.ranks.iter().find(|(_, rank)| **rank == 0 || **rank > self.rank) {
            return Some(format!(
                "[ranks] gives '{site}' a rank of {rank}; it must be from 1 to 'rank', which is {}",
                self.rank
            ));
        }
        let ordered = self.aggregation == Aggregation::ProductSvd && self.precision == Precision::F32;
        if !(self.ranks.is_empty() || ordered && self.method.uses_lora()) {
            let why = "[ranks] needs a method with LoRA, aggregation = \"product_svd\", which puts the ranks in order of size, \
                       and precision = \"f32\"; change these, or remove it";
            return Some(why.into());
        }
        None
    }

    fn mistake_about_setting(&self) -> Option<String> {
        let key = self.without_effect()?;
        let setting = match self.setting {
            Setting::Alone => "alone",
            _ => "pooled",
        };
        Some(format!(
            "'{key}' has no effect with setting = \"{setting}\", where nothing travels; remove it"
        ))
    }

    /// An option of federations that is set where there is none.
    fn without_effect(&self) -> Option<&'static str> {
        let set = [
            ("participation", self.participation != 1.0),
            ("aggregation", self.aggregation != Aggregation::default()),
            ("ranks", !self.ranks.is_empty()),
            ("precision", self.precision != Precision::default()),
            ("server_adam", self.server_adam.is_some()),
            ("privacy", self.privacy.is_some()),
            ("robust", self.robust.is_some()),
            ("quorum", self.quorum.is_some()),
            ("largest_change", self.largest_change.is_some()),
            ("secure_aggregation", self.secure_aggregation),
            ("fault", !self.fault.is_empty()),
            ("local.proximal", self.local.proximal != 0.0),
        ];
        let set = set.iter().find(|(_, set)| *set).map(|(key, _)| *key);
        set.filter(|_| self.setting != Setting::Federated)
    }

    /// What makes no sense in how bad clients are dealt with.
    fn mistake_about_bad_clients(&self) -> Option<String> {
        if let Some(why) = self.robust.as_ref().and_then(Robust::mistake) {
            return Some(why);
        }
        if self.robust.is_some() && !(self.aggregation == Aggregation::ProductSvd && self.ranks.is_empty()) {
            let why = "'robust' counts LoRA pairs by their products and sends the nearest pair, as aggregation = \"product_svd\" \
                       does; remove 'aggregation' or [ranks]";
            return Some(why.into());
        }
        if self.quorum == Some(0) {
            return Some("'quorum' must be at least 1".into());
        }
        if let Some(times) = self
            .largest_change
            .filter(|times| !(*times >= 1.0 && times.is_finite()))
        {
            return Some(format!(
                "'largest_change' is {times} times the round's median change; it must be at least 1"
            ));
        }
        let may_miss = self.quorum.is_some();
        if may_miss && (self.precision != Precision::F32 || self.aggregation.folds()) {
            let why = "with 'quorum' a client may miss a round, and below 32 bits, or where pairs are folded into the weights, \
                       it would miss what only that round carried; remove 'quorum', or 'precision' and 'aggregation'";
            return Some(why.into());
        }
        None
    }

    /// What of these settings needs to see a single client's update.
    fn mistake_about_secrecy(&self) -> Option<String> {
        let needs = [
            ("robust", self.robust.is_some()),
            ("largest_change", self.largest_change.is_some()),
            ("quorum", self.quorum.is_some()),
            ("precision", self.precision != Precision::F32),
            ("ranks", !self.ranks.is_empty()),
        ];
        let needs = needs
            .into_iter()
            .find(|(_, set)| *set)
            .map(|(key, _)| format!("'{key}'"));
        let rule = || format!("aggregation = \"{}\"", self.aggregation.name());
        let product = self.method.uses_lora() && !self.aggregation.needs_sums_alone();
        let needs = needs
            .or_else(|| product.then(rule))
            .filter(|_| self.secure_aggregation)?;
        Some(format!(
            "with 'secure_aggregation' the server learns the sum of what clients say and no client's own, which {needs} needs; \
             remove it, or 'secure_aggregation' (with LoRA pairs it goes with aggregation = \"mean_of_factors\", \"ffa_lora\", \
             \"fedsa_lora\" or \"rolora\")"
        ))
    }

    /// What makes no sense in how patients are held out, and dealt out to clients.
    fn mistake_about_patients(&self) -> Option<String> {
        if let Some(share) = self.hold_out.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            return Some(format!("'hold_out' is {share}; it must be above 0 and below 1"));
        }
        if self.clients_per_site.is_some_and(|clients| clients < 2) {
            return Some("'clients_per_site' must be at least 2; a site is one client without it".into());
        }
        if self.clients_per_site.is_some() && !self.preprocessing.sites.is_empty() {
            let why = "[preprocessing.sites] names sites, and 'clients_per_site' makes several clients of each; remove one of \
                       the two";
            return Some(why.into());
        }
        None
    }

    /// Where leaving a site out shows nothing.
    fn mistake_about_leaving_out(&self) -> Option<String> {
        self.leave_out.as_ref()?;
        if self.setting == Setting::Alone {
            let why = "'leave_out' has no effect with setting = \"alone\", where each client's model is judged on all sites' \
                       cases anyway; remove it";
            return Some(why.into());
        }
        if self.has_personal_models() {
            let why = "with 'leave_out' a site is judged that trains nothing, and where each client has a model of its own \
                       that site has none; remove 'leave_out', or 'num_lora' and an aggregation that keeps B at the clients";
            return Some(why.into());
        }
        None
    }

    /// What makes no sense in who takes part in a round, and with how much of the data.
    fn mistake_about_participation(&self) -> Option<String> {
        if self.precision != Precision::F32 && self.participation < 1.0 {
            let why = "below 32 bits only differences travel, and who sits out a round misses them; remove 'precision' or \
                       'participation'";
            return Some(why.into());
        }
        let shares = [("participation", self.participation), ("local.share", self.local.share)];
        let outside = shares.into_iter().find(|(_, share)| !(*share > 0.0 && *share <= 1.0));
        outside.map(|(key, share)| format!("'{key}' is {share}; it must be above 0 and at most 1"))
    }

    /// What makes no sense in the pull of FedProx, the tolerance of surfaces, or how long the schedule is.
    fn mistake_about_measures(&self) -> Option<String> {
        let proximal = self.local.proximal;
        if !(proximal >= 0.0 && proximal.is_finite()) {
            return Some(format!("'local.proximal' is {proximal}; it must be 0 or more"));
        }
        let tolerance = self.surface_tolerance_mm;
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return Some(format!(
                "'surface_tolerance_mm' is {tolerance}; it must be a number of millimetres, 0 or more"
            ));
        }
        if self.schedule.max_iterations.is_some() == self.schedule.max_epochs.is_some() {
            return Some("[schedule] must have either 'max_iterations' or 'max_epochs'".into());
        }
        None
    }

    /// What the rule of averaging does not go with.
    fn mistake_about_aggregation(&self) -> Option<String> {
        let same_coordinates = matches!(self.aggregation, Aggregation::MeanOfFactors | Aggregation::FfaLora);
        if self.server_adam.is_some() && self.method.uses_lora() && !same_coordinates {
            let why = "[server_adam] steps from one state's factors to the next one's, and this aggregation turns them each \
                       round; set aggregation = \"mean_of_factors\"";
            return Some(why.into());
        }
        let plain = self.num_lora == 1 && !self.dora && self.participation == 1.0;
        // Weights that are trained themselves cannot take the pairs in as well.
        let plain = plain && self.method != Method::LoraDecoderFt && self.precision == Precision::F32;
        if self.aggregation.folds() && !plain {
            return Some(format!(
                "aggregation = \"{}\" is for one plain LoRA beside frozen attentions, and for all clients in every round; \
                 remove 'num_lora', 'dora', 'participation' or 'precision', and train with lora_ft or flap_sam",
                self.aggregation.name()
            ));
        }
        if self.precision != Precision::F32 && self.aggregation.sent(1) != self.aggregation.sent(2) {
            return Some(format!(
                "below 32 bits only differences travel, and aggregation = \"{}\" sends other parameters every round; \
                 remove 'precision'",
                self.aggregation.name()
            ));
        }
        None
    }
}
