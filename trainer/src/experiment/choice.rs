//! Which of a data set's cases take part in an experiment, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use flapsam_model::random::Random;

use super::config::Experiment;
use crate::data::cases::lock::ready;
use crate::data::manifest::{Case, Manifest};
use crate::error::{Error, Result};

impl Experiment {
    /// Its data set, ready for use, given the folder of data sets; as [`Experiment::divided`] has it.
    ///
    /// # Errors
    /// The manifest cannot be read, its checksums are not all known, or see [`Experiment::divided`].
    pub fn data_set(&self, data: &Path) -> Result<Manifest> {
        self.divided(ready(&self.manifest(data), data)?)
    }

    /// A data set as the experiment has it: with `clients_per_site`, each site's patients are dealt out, in order of
    /// their names, to so many clients `site-1`, `site-2` and on, those for training and those for testing each in turn.
    ///
    /// # Errors
    /// A site that trains has fewer patients to train on than clients.
    pub fn divided(&self, mut manifest: Manifest) -> Result<Manifest> {
        let Some(clients) = self.clients_per_site else {
            return Ok(manifest);
        };
        let cases = manifest.cases.iter();
        let (train, test): (Vec<&Case>, Vec<&Case>) = cases.partition(|case| case.train);
        let (training, test) = (patients(train), patients(test));
        if let Some((site, few)) = training.iter().find(|(_, patients)| patients.len() < clients) {
            let why = format!(
                "'clients_per_site' is {clients}, and site '{site}' has {} to train on; choose fewer",
                few.len()
            );
            return Err(Error::invalid(&self.path, why));
        }
        let mut dealt = BTreeMap::new();
        for (&site, patients) in training.iter().chain(&test) {
            for (&patient, client) in patients.iter().zip((1..=clients).cycle()) {
                dealt.insert((site, patient), format!("{site}-{client}"));
            }
        }
        let divided: Vec<String> = manifest
            .cases
            .iter()
            .map(|case| dealt[&patient(case)].clone())
            .collect();
        for (case, client) in manifest.cases.iter_mut().zip(divided) {
            case.site = client;
        }
        Ok(manifest)
    }
}

/// The cases of an experiment.
pub(super) struct Chosen<'a> {
    /// For training.
    pub(super) train: Vec<&'a Case>,
    /// To be judged.
    pub(super) test: Vec<&'a Case>,
}

/// All cases, or the first ones of each site and split; of a site that is left out those for testing alone; and where
/// patients are held out, theirs in place of those for testing.
///
/// # Errors
/// A site that is left out does not fit the data, or no patient is left to train on.
pub(super) fn chosen_cases<'a>(manifest: &'a Manifest, experiment: &Experiment) -> Result<Chosen<'a>> {
    let refuse = |why| Error::invalid(&experiment.path, why);
    let left_out = experiment.leave_out.as_deref();
    if let Some(why) = left_out.and_then(|site| mistake_of_leaving_out(site, manifest)) {
        return Err(refuse(format!("'leave_out' is {why}")));
    }
    let mut taken: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let keep = |case: &&Case| {
        let count = taken.entry((case.site.clone(), case.train)).or_default();
        *count += 1;
        let limit = experiment.cases_per_site;
        limit.is_none_or(|[train, test]| *count <= if case.train { train } else { test })
    };
    let (mut train, mut test): (Vec<&Case>, Vec<&Case>) =
        manifest.cases.iter().filter(keep).partition(|case| case.train);
    if let Some(share) = experiment.hold_out {
        let held_out = held_out(&train, share);
        (test, train) = train.into_iter().partition(|case| held_out.contains(&patient(case)));
        if let Some(case) = test
            .iter()
            .find(|case| !train.iter().any(|other| other.site == case.site))
        {
            let why = format!(
                "'hold_out' leaves site '{}' no patient to train on; hold out a smaller share",
                case.site
            );
            return Err(refuse(why));
        }
    }
    train.retain(|case| left_out != Some(&*case.site));
    Ok(Chosen { train, test })
}

/// A case's site and patient; a case that names no patient is one by itself.
fn patient(case: &Case) -> (&str, &str) {
    (&case.site, case.patient.as_deref().unwrap_or(&case.id))
}

/// The patients of each site.
fn patients<'a>(cases: impl IntoIterator<Item = &'a Case>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut of_sites: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for case in cases {
        let (site, patient) = patient(case);
        of_sites.entry(site).or_default().insert(patient);
    }
    of_sites
}

/// This share of each site's patients, rounded up; the same ones whenever it is asked for.
fn held_out<'a>(train: &[&'a Case], share: f64) -> BTreeSet<(&'a str, &'a str)> {
    let of_site = |(site, patients): (&'a str, BTreeSet<&'a str>)| {
        let mut patients: Vec<&str> = patients.into_iter().collect();
        Random::new(0, &format!("held out/{site}")).shuffle(&mut patients);
        patients.truncate((share * patients.len() as f64).ceil() as usize);
        patients.into_iter().map(move |patient| (site, patient))
    };
    patients(train.iter().copied()).into_iter().flat_map(of_site).collect()
}

/// Why leaving a site out would show nothing.
fn mistake_of_leaving_out(site: &str, manifest: &Manifest) -> Option<String> {
    let sites = |train: bool| -> BTreeSet<&str> {
        let cases = manifest.cases.iter().filter(|case| case.train == train);
        cases.map(|case| case.site.as_str()).collect()
    };
    let (training, test) = (sites(true), sites(false));
    let others: Vec<&str> = training.iter().copied().filter(|other| *other != site).collect();
    let named = |sites: Vec<&str>| sites.join(", ");
    match (training.contains(site), test.contains(site)) {
        (false, false) => Some(format!(
            "'{site}', and the data have no such site; choose one of {}",
            named(training.union(&test).copied().collect())
        )),
        (false, true) => Some(format!("'{site}', which has no training case anyway; remove it")),
        (true, false) => Some(format!(
            "'{site}', which has no test case, so that nobody would see what that does to it; leave another site out"
        )),
        (true, true) if others.len() < 2 => Some(format!(
            "'{site}', and then only {} trains: that is what setting = \"alone\" does, and it judges each client's model on \
             all sites' cases; choose that, and remove 'leave_out'",
            named(others)
        )),
        (true, true) => None,
    }
}
