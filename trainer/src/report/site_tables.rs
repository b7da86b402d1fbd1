//! The tables of Dice by model and site.

use maud::{Markup, html};

use super::comparison::method_name;
use super::format::{count, dice, signed};
use super::sites::{Cell, LeftOutRow, LeftOutSites, ModelRow, SiteBySite, TestSite};
use super::tables::what_dice_is;
use super::{Comparison, Group};

/// Every model on every site's test cases: of the example's method at once, of the others folded.
pub fn site_by_site(comparison: &Comparison) -> Markup {
    let compares = |matrix: &&SiteBySite| matrix.sites.len() > 1 && matrix.rows.len() > 1;
    let all: Vec<&SiteBySite> = comparison.site_by_site.iter().filter(compares).collect();
    let example = comparison.experiments[comparison.example()].method;
    let (open, folded): (Vec<&SiteBySite>, Vec<&SiteBySite>) = all
        .iter()
        .partition(|matrix| matrix.method == example || all.len() == 1);
    html! {
        @for matrix in &open { (models(comparison, matrix)) }
        @if !all.is_empty() {
            p.note {
                "★ The best of its column, as far as digits are shown. Framed: a client’s model on its own site’s test \
                 cases. The stronger the tint, the higher the Dice."
            }
        }
        @for matrix in &folded {
            details {
                summary { "Site by site: " (method_name(matrix.method)) }
                (models(comparison, matrix))
            }
        }
    }
}

fn models(comparison: &Comparison, matrix: &SiteBySite) -> Markup {
    let of_row = |row: &ModelRow| {
        let cells = row.dice.iter().zip(&matrix.sites);
        let cells = cells.map(|(cell, site)| figure(cell.as_ref(), row.client.as_ref() == Some(&site.site), None));
        (html! { (row.model) }, cells.collect())
    };
    // The clients' models of one experiment stand together, and so do models that are the only ones of theirs.
    let together = |one: &ModelRow, other: &ModelRow| match (&one.client, &other.client) {
        (Some(_), Some(_)) => one.experiment == other.experiment,
        (one, other) => one.is_none() && other.is_none(),
    };
    let bodies = matrix.rows.chunk_by(together);
    let bodies = bodies.map(|rows| rows.iter().map(of_row).collect()).collect();
    let caption = html! {
        strong { "Site by site, " (method_name(matrix.method)) ". " }
        "Dice of each model (row) on each site’s test cases (column) after " (count(matrix.rounds, "round"))
        (means(comparison, matrix.rows.iter().flat_map(|row| &row.dice)))
    };
    html! {
        (table("Dice by model and site", &caption, "Model", &matrix.sites, bodies))
        @for experiment in &matrix.missing {
            p.note { "Rows of " (experiment) " are missing: its record is older than they are; make the run once more." }
        }
    }
}

/// What becomes of a site on which nobody trains.
pub fn left_out_sites(comparison: &Comparison) -> Markup {
    let groups = [Group::Method, Group::Variant, Group::Alone];
    let others = groups.into_iter().any(|group| comparison.group(group).next().is_some());
    let all = &comparison.left_out_sites;
    let compared = all
        .iter()
        .flat_map(|matrix| &matrix.rows)
        .any(|row| row.against_taking_part.is_some());
    html! {
        @for matrix in all { (left_out(comparison, matrix)) }
        @if !all.is_empty() {
            p.note {
                @if !others { (what_dice_is(&comparison.group(Group::LeftOut).collect::<Vec<_>>())) " " }
                "Framed: a site on whose cases nobody trained"
                @if compared { "; below it, its Dice less that at the same seeds where it takes part" }
                @else { "; no run of the same settings and seed, in which all take part, is here to compare it with" }
                ". ★ The best of its column. The stronger the tint, the higher the Dice."
            }
        }
    }
}

fn left_out(comparison: &Comparison, matrix: &LeftOutSites) -> Markup {
    let of_row = |row: &LeftOutRow| {
        let cells = row.dice.iter().zip(&matrix.sites).map(|(cell, site)| {
            let is_left_out = row.left_out.as_ref() == Some(&site.site);
            figure(
                cell.as_ref(),
                is_left_out,
                row.against_taking_part.filter(|_| is_left_out),
            )
        });
        let name = row
            .left_out
            .as_ref()
            .map_or("all sites".into(), |site| format!("all but {site}"));
        (html! { (name) }, cells.collect())
    };
    let bodies = vec![matrix.rows.iter().map(of_row).collect()];
    let caption = html! {
        strong { "Left out, " (matrix.name) ". " }
        "Dice on each site’s test cases (column) after " (count(matrix.rounds, "round"))
        ", by the sites that took part in training (row)"
        (means(comparison, matrix.rows.iter().flat_map(|row| &row.dice)))
    };
    table(
        "Dice by site left out and site judged",
        &caption,
        "Trained on",
        &matrix.sites,
        bodies,
    )
}

/// Of what the figures are means.
fn means<'a>(comparison: &Comparison, mut cells: impl Iterator<Item = &'a Option<Cell>>) -> Markup {
    let several_seeds = cells.any(|cell| cell.as_ref().is_some_and(|cell| cell.dice.sd.is_some()));
    html! {
        @if comparison.classes.len() > 1 { ", mean over the classes" }
        @if several_seeds { ", mean over seeds ± standard deviation" }
        "."
    }
}

/// A cell of Dice, framed or not, with a difference below it.
fn figure(cell: Option<&Cell>, framed: bool, difference: Option<f64>) -> Markup {
    let class = if framed { "number framed" } else { "number" };
    let Some(cell) = cell else {
        return html! { td class=(class) { "–" } };
    };
    let value = dice(cell.dice.mean);
    html! {
        td class=(class) style={ "--dice:" (value) } {
            @if cell.best { strong { "★ " (value) } } @else { (value) }
            @if let Some(sd) = cell.dice.sd { span.more { "± " (dice(sd)) } }
            @if let Some(difference) = difference { span.more { (signed(difference)) } }
        }
    }
}

/// A table with a column for each site; of each row its name and cells.
fn table(
    label: &str,
    caption: &Markup,
    what: &str,
    sites: &[TestSite],
    bodies: Vec<Vec<(Markup, Vec<Markup>)>>,
) -> Markup {
    html! {
        div.wide tabindex="0" role="region" aria-label=(label) {
            table.grouped.tinted {
                caption { div.held { (caption) } }
                thead {
                    tr {
                        th scope="col" { (what) }
                        @for site in sites {
                            th.number scope="col" { (site.site) span.more { (count(site.cases, "case")) } }
                        }
                    }
                }
                @for rows in bodies {
                    tbody {
                        @for (name, cells) in rows {
                            tr {
                                th scope="row" { (name) }
                                @for cell in cells { (cell) }
                            }
                        }
                    }
                }
            }
        }
    }
}
