//! What a run is judged by: its networks, their scores, and the record of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flapsam_model::adapter::Adapter;
use flapsam_model::parameters::StateDict;
use flapsam_model::sam::Sam;

use super::{Run, Site};
use crate::data::manifest::Case;
use crate::error::Result;
use crate::experiment::evaluation::{CaseScores, Examination, MeanScores, mean_dice};
use crate::experiment::{Record, Setting};
use crate::federation::{Federation, Member, RoundRecord, shares};

/// A trained network: what an adapter file holds.
pub(super) struct Model {
    /// Whose it is, where there are several.
    pub(super) site: Option<String>,
    pub(super) adapter: Adapter,
}

/// What training leaves for the record.
pub(super) struct Training {
    pub(super) untrained_dice: Vec<f64>,
    pub(super) rounds: Vec<RoundRecord>,
    pub(super) trained_parameters: usize,
}

impl Run {
    /// The networks to be judged: the federation's one; each client's where they differ.
    pub(super) fn models(&self, federation: &Federation) -> Result<Vec<Model>> {
        let model = |site: Option<&str>, state: StateDict| {
            let adapter = self.network.adapter_of(state)?;
            Ok(Model {
                site: site.map(str::to_owned),
                adapter,
            })
        };
        let members = &federation.members;
        match self.experiment.setting {
            Setting::Federated if !self.experiment.has_personal_models() => Ok(vec![model(None, federation.model())?]),
            Setting::Pooled => Ok(vec![model(None, members[0].client.trained())?]),
            _ => {
                let of_client = |member: &Member| model(Some(&member.client.site), member.client.trained());
                members.iter().map(of_client).collect()
            }
        }
    }

    /// The file of the adapter that holds a state, and its scores on every test case.
    pub(in crate::experiment) fn judge_state(&self, state: StateDict) -> Result<(Vec<u8>, Vec<CaseScores>)> {
        let model = Model {
            site: None,
            adapter: self.network.adapter_of(state)?,
        };
        let bytes = model.adapter.to_bytes();
        let tolerance = self.experiment.surface_tolerance_mm;
        let networks = [self.sam(&model)?];
        let cases = self
            .examination(self.test.iter().collect())
            .judge(&networks, None, Some(tolerance))?;
        Ok((bytes, cases.concat()))
    }

    /// Mean Dice of the models by class.
    pub(super) fn dice(&self, models: &[Model]) -> Result<Vec<f64>> {
        let evaluations = self.judge(models, None, None)?;
        Ok(mean_dice(evaluations.iter().flatten()))
    }

    /// Scores of every test case, by model; those of surfaces only with a tolerance. A client's personal model is judged
    /// on the cases of its own site.
    pub(super) fn judge(
        &self,
        models: &[Model],
        masks: Option<&Path>,
        surface_tolerance_mm: Option<f64>,
    ) -> Result<Vec<Vec<CaseScores>>> {
        if !(self.experiment.has_personal_models() && models.len() > 1) {
            let networks = models.iter().map(|model| self.sam(model));
            let networks = networks.collect::<Result<Vec<_>>>()?;
            return self
                .examination(self.test.iter().collect())
                .judge(&networks, masks, surface_tolerance_mm);
        }
        let of_model = |model: &Model| {
            let own = |case: &&Case| model.site.as_ref() == Some(&case.site);
            let cases = self.test.iter().filter(own).collect();
            Ok(self
                .examination(cases)
                .judge(&[self.sam(model)?], masks, surface_tolerance_mm)?
                .remove(0))
        };
        models.iter().map(of_model).collect()
    }

    /// Where clients have models of their own: Dice of each one's by site of the test case. A case on which a model has not
    /// been judged yet is segmented for this alone.
    pub(super) fn dice_by_client(
        &self,
        models: &[Model],
        evaluations: &[Vec<CaseScores>],
    ) -> Result<BTreeMap<String, BTreeMap<String, Vec<f64>>>> {
        let mut all = BTreeMap::new();
        for (model, judged) in models.iter().zip(evaluations) {
            let Some(client) = &model.site else { continue };
            let is_judged = |case: &Case| {
                judged
                    .iter()
                    .any(|scores| scores.case == case.id && scores.site == case.site)
            };
            let others: Vec<&Case> = self.test.iter().filter(|case| !is_judged(case)).collect();
            let others = match others.is_empty() {
                true => Vec::new(),
                false => self
                    .examination(others)
                    .judge(&[self.sam(model)?], None, None)?
                    .remove(0),
            };
            all.insert(client.clone(), self.by_site(&[&judged[..], &others].concat()));
        }
        Ok(all)
    }

    fn sam(&self, model: &Model) -> Result<Sam> {
        let mut parameters = self.weights.clone();
        parameters.load(&model.adapter.state, &self.device.device);
        Ok(Sam::new(
            self.network.sam(),
            Some(&model.adapter.metadata.adapter),
            &parameters,
        )?)
    }

    /// Mean Dice by class over each site's test cases; nothing for a site without.
    fn by_site(&self, cases: &[CaseScores]) -> BTreeMap<String, Vec<f64>> {
        let training = self.sites.iter().map(|site| &site.name);
        let sites: BTreeSet<&String> = training.chain(self.test.iter().map(|case| &case.site)).collect();
        let of_site = |site: &String| {
            let own = cases.iter().filter(|case| case.site == *site);
            (site.clone(), mean_dice(own))
        };
        sites.into_iter().map(of_site).collect()
    }

    /// Each site's share of the slices that are trained on.
    fn weights_of_sites(&self) -> BTreeMap<String, f64> {
        let slices: Vec<Vec<usize>> = self.sites.iter().map(Site::slices).collect();
        let slices: Vec<&[usize]> = slices.iter().map(Vec::as_slice).collect();
        let names = self.sites.iter().map(|site| site.name.clone());
        names.zip(shares(&slices)).collect()
    }

    fn examination<'a>(&'a self, cases: Vec<&'a Case>) -> Examination<'a> {
        Examination {
            folder: self.data_folder.clone(),
            cases,
            classes: self.manifest.classes.len(),
            preprocessing: &self.experiment.preprocessing,
            side: self.network.sam().image_size,
            device: &self.device.device,
        }
    }

    pub(super) fn record(
        &self,
        training: Training,
        models: &[Model],
        evaluations: &[Vec<CaseScores>],
        dice_by_client: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
        adapter_sha256: Vec<String>,
    ) -> Record {
        let cases: Vec<CaseScores> = match self.experiment.has_personal_models() {
            true => evaluations.concat(),
            false => {
                let of_case = |index: usize| {
                    let all = evaluations.iter().map(|evaluation| &evaluation[index]);
                    let mean = MeanScores::of(all);
                    CaseScores {
                        dice: mean.dice,
                        hausdorff_95_mm: mean.hausdorff_95_mm,
                        surface_dice: mean.surface_dice,
                        ..evaluations[0][index].clone()
                    }
                };
                (0..self.test.len()).map(of_case).collect()
            }
        };
        let alone = match self.experiment.setting {
            Setting::Federated | Setting::Pooled => BTreeMap::new(),
            Setting::Alone => {
                let of_client = |(model, evaluation): (&Model, &Vec<CaseScores>)| {
                    Some((model.site.clone()?, mean_dice(evaluation.iter())))
                };
                models.iter().zip(evaluations).filter_map(of_client).collect()
            }
        };
        let mean = MeanScores::of(cases.iter());
        Record {
            title: self.experiment.title.clone(),
            method: self.experiment.method,
            setting: self.experiment.setting,
            data: self.manifest.about.name.clone(),
            seed: self.seed,
            partial: self.experiment.cases_per_site.is_some() || self.experiment.hold_out.is_some(),
            left_out: self.experiment.leave_out.clone(),
            classes: self.manifest.classes.clone(),
            data_description: self.manifest.about.description.clone(),
            trained_parameters: training.trained_parameters,
            weights: self.weights_of_sites(),
            untrained_dice: training.untrained_dice,
            rounds: training.rounds,
            dice: mean.dice,
            hausdorff_95_mm: mean.hausdorff_95_mm,
            hausdorff_95_cases: mean.hausdorff_95_cases,
            surface_dice: mean.surface_dice,
            surface_tolerance_mm: self.experiment.surface_tolerance_mm,
            dice_by_site: self.by_site(&cases),
            cases,
            alone,
            dice_by_client,
            adapter_sha256,
        }
    }
}
