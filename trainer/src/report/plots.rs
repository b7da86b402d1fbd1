//! Line plots as SVG, in the page or in files of their own. Colours and type are the page's: see `style.css`.

use maud::{Markup, PreEscaped, html};

/// The page's style, with the colours that plots have too.
pub const PAGE_STYLE: &str = include_str!("style.css");
/// The plots' own.
pub const STYLE: &str = include_str!("plots.css");

/// How many series have a colour and a marker of their own; further ones begin again.
pub const STYLES: usize = 7;

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Mean width of a character of a label.
const CHARACTER: f64 = 8.6;
/// Between the lines below a plot in a file of its own.
const LINE: f64 = 18.0;
/// How often all labels are placed, each beside the others.
const SWEEPS: usize = 3;

/// One plot.
#[derive(Debug)]
pub struct Plot {
    /// What it shows, for those who cannot see it: the values too.
    pub alternative: String,
    /// What runs to the right.
    pub x: Axis,
    /// What runs upwards.
    pub y: Axis,
    /// Lines and points.
    pub series: Vec<Series>,
    /// Levels of what has no place on the x axis.
    pub levels: Vec<Level>,
}

/// An axis.
#[derive(Debug)]
pub struct Axis {
    /// What and in which unit.
    pub name: String,
    from: f64,
    to: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

/// Points in the order in which a line joins them.
#[derive(Debug)]
pub struct Series {
    /// Its colour and marker, from 0.
    pub style: usize,
    /// Written beside its last point, if anything.
    pub label: Option<String>,
    /// x and y.
    pub points: Vec<(f64, f64)>,
    /// Further points, which no line joins.
    pub scattered: Vec<(f64, f64)>,
}

/// A horizontal line.
#[derive(Debug)]
pub struct Level {
    /// What it is.
    pub label: String,
    /// Where.
    pub y: f64,
}

/// Where a label could be: x, y and its anchor.
type Place = (f64, f64, &'static str);

/// A label that has no place yet.
#[derive(Debug)]
struct Wanted<'a> {
    text: &'a str,
    /// The point that it names, if it names one.
    of: Option<(f64, f64)>,
    /// In the order of their merit.
    places: Vec<Place>,
}

/// A text: its anchor is on its baseline.
#[derive(Debug, Clone, Copy)]
struct Label<'a> {
    /// The point that it names, if it names one.
    of: Option<(f64, f64)>,
    x: f64,
    y: f64,
    anchor: &'static str,
    text: &'a str,
}

/// A rectangle.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl<'a> Wanted<'a> {
    /// The label at each of its places.
    fn labels(&self) -> impl Iterator<Item = Label<'a>> {
        let (text, of) = (self.text, self.of);
        let places = self.places.iter();
        places.map(move |&(x, y, anchor)| Label { of, x, y, anchor, text })
    }
}

impl Label<'_> {
    /// Roughly what it covers: the page's font is not known here.
    fn area(&self) -> Area {
        let width = CHARACTER * self.text.chars().count() as f64;
        let left = match self.anchor {
            "start" => self.x,
            "end" => self.x - width,
            _ => self.x - width / 2.0,
        };
        Area {
            left,
            right: left + width,
            top: self.y - 11.0,
            bottom: self.y + 4.0,
        }
    }

    /// From the point to the label, where the two are not beside each other.
    fn leader(&self) -> Option<[(f64, f64); 2]> {
        let (x, y) = self.of?;
        let area = self.area();
        let end = (x.clamp(area.left, area.right), y.clamp(area.top, area.bottom));
        (end.0 - x).hypot(end.1 - y).gt(&16.0).then_some([(x, y), end])
    }
}

impl Area {
    fn holds(&self, (x, y): (f64, f64)) -> bool {
        (self.left..=self.right).contains(&x) && (self.top..=self.bottom).contains(&y)
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    /// With so much more on each side.
    fn widened(&self, by: f64) -> Self {
        Self {
            left: self.left - by,
            right: self.right + by,
            top: self.top - by,
            bottom: self.bottom + by,
        }
    }

    /// How many of its sides lie outside of the plot.
    fn outside(&self) -> usize {
        let outside = [
            // Between the axis and its numbers is some room.
            self.left < LEFT - 4.0,
            self.right > WIDTH,
            self.top < 0.0,
            self.bottom > HEIGHT - BOTTOM,
        ];
        outside.into_iter().filter(|side| *side).count()
    }
}

impl Axis {
    /// Whole numbers from the first to the last.
    pub fn counting(name: &str, last: usize) -> Self {
        let step = last.div_ceil(8).max(1);
        let first = std::iter::once(1).filter(|_| step > 1);
        let ticks = first.chain((1..=last).filter(|number| number % step == 0));
        Self {
            name: name.into(),
            from: 1.0,
            // A single round needs a width, too.
            to: last.max(2) as f64,
            logarithmic: false,
            ticks: ticks.map(|number| (number as f64, number.to_string())).collect(),
        }
    }

    /// From 0 to a round number above the highest value.
    pub fn from_zero(name: &str, highest: f64) -> Self {
        Self::between(name, 0.0, highest)
    }

    /// Around shares: from a round number below the lowest one (0, if that is near) to one above the highest.
    pub fn around(name: &str, values: &[f64]) -> Self {
        let highest = values.iter().copied().fold(0.0, f64::max);
        let lowest = values.iter().copied().fold(highest, f64::min);
        Self::around_span(name, lowest, highest)
    }

    /// The same without a single value far below all others, which would leave them no room to differ; it goes to the
    /// edge.
    pub fn around_most(name: &str, values: &[f64]) -> Self {
        let highest = values.iter().copied().fold(0.0, f64::max);
        let others: Vec<f64> = values.iter().copied().filter(|value| *value > highest / 2.0).collect();
        let lowest = values.iter().copied().fold(highest, f64::min);
        match others.len() > 2 && others.len() + 1 == values.len() && lowest < highest / 10.0 {
            true => Self::around(name, &others),
            false => Self::around(name, values),
        }
    }

    fn around_span(name: &str, lowest: f64, highest: f64) -> Self {
        // Narrower, noise would look like a difference.
        let lowest = lowest.min(highest - 0.05);
        Self::between(name, if lowest < highest / 3.0 { 0.0 } else { lowest }, highest)
    }

    fn between(name: &str, lowest: f64, highest: f64) -> Self {
        let span = highest - lowest;
        let step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .find(|step| span / step <= 6.0)
            .unwrap_or(span / 5.0);
        let first = (lowest / step + 1e-9).floor().max(0.0) as usize;
        let last = ((highest / step - 1e-9).ceil() as usize).max(first + 1);
        let decimals = if step < 0.1 { 2 } else { 1 };
        let tick = |number: usize| (number as f64 * step, format!("{:.decimals$}", number as f64 * step));
        Self {
            name: name.into(),
            from: first as f64 * step,
            to: last as f64 * step,
            logarithmic: false,
            ticks: (first..=last).map(tick).collect(),
        }
    }

    /// Whether a value lies below it.
    pub fn is_below(&self, value: f64) -> bool {
        value < self.from
    }

    /// Whether it begins at 0.
    pub fn begins_at_zero(&self) -> bool {
        self.from == 0.0
    }

    /// Bytes on a logarithmic scale, with room around the values; these must be positive.
    pub fn bytes(name: &str, values: &[f64]) -> Self {
        Self::logarithmic(name, values, bytes)
    }

    /// Values on a logarithmic scale, with room around them; these must be positive.
    pub fn logarithmic(name: &str, values: &[f64], text: impl Fn(f64) -> String) -> Self {
        let lowest = values.iter().copied().fold(f64::INFINITY, f64::min) / 1.8;
        let highest = values.iter().copied().fold(0.0, f64::max) * 1.8;
        let digits: &[f64] = match highest / lowest {
            span if span > 300.0 => &[1.0],
            span if span > 30.0 => &[1.0, 3.0],
            _ => &[1.0, 2.0, 5.0],
        };
        let decades = lowest.log10().floor() as i32..=highest.log10().ceil() as i32;
        let ticks = decades.flat_map(|decade| digits.iter().map(move |digit| digit * 10f64.powi(decade)));
        let ticks = ticks.filter(|tick| (lowest..=highest).contains(tick));
        Self {
            name: name.into(),
            from: lowest,
            to: highest,
            logarithmic: true,
            ticks: ticks.map(|tick| (tick, text(tick))).collect(),
        }
    }

    /// Where a value is, as a share of the axis.
    fn place(&self, value: f64) -> f64 {
        match self.logarithmic {
            true => (value / self.from).ln() / (self.to / self.from).ln(),
            false => (value - self.from) / (self.to - self.from),
        }
    }
}

/// A number of bytes in decimal units, to three digits.
pub fn bytes(count: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let place = (0..units.len() - 1).take_while(|&place| count >= 999.5 * 1000f64.powi(place as i32));
    let place = place.count();
    let value = count / 1000f64.powi(place as i32);
    let decimals = match value {
        _ if value.fract() == 0.0 || value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    // A space that does not break.
    format!("{value:.decimals$}\u{a0}{}", units[place])
}

impl Plot {
    /// Whether a point lies below the axis.
    pub fn has_below(&self) -> bool {
        let mut points = self.series.iter().flat_map(|series| &series.points);
        points.any(|(_, y)| self.y.is_below(*y))
    }

    /// The picture.
    pub fn svg(&self) -> Markup {
        html! {
            svg.plot viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(self.alternative) { (self.drawing()) }
        }
    }

    /// The picture as a file that needs nothing else, for a paper: in light colours, with the names of its series and a note
    /// below.
    pub fn file(&self, legend: &[(usize, String)], note: &str) -> String {
        let line = |place: usize| HEIGHT + LINE * (place as f64 + 0.8);
        let height = line(legend.len()) + LINE * 0.6;
        let svg = html! {
            svg.plot xmlns="http://www.w3.org/2000/svg" width=(WIDTH) height=(height)
                viewBox={ "0 0 " (WIDTH) " " (height) } {
                title { (self.alternative) }
                style { (PreEscaped(in_light_colours(STYLE))) }
                rect width="100%" height="100%" fill="#fff" {}
                (self.drawing())
                @for (place, (style, name)) in legend.iter().enumerate() {
                    @let y = line(place);
                    g class={ "series-" (style % STYLES) } {
                        line.line x1=(LEFT) x2=(LEFT + 30.0) y1=(y) y2=(y) {}
                        (marker(*style, LEFT + 15.0, y, 4.0))
                    }
                    text.name x=(LEFT + 38.0) y=(y + 4.0) { (name) }
                }
                text.tick x=(LEFT) y=(line(legend.len()) + 4.0) { (note) }
            }
        };
        svg.into_string() + "\n"
    }

    /// What is drawn.
    fn drawing(&self) -> Markup {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        html! {
            @for (value, text) in &self.y.ticks {
                @let y = self.y(*value);
                line.grid x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
                text.tick x=(LEFT - 6.0) y=(rounded(y + 4.0)) text-anchor="end" { (text) }
            }
            @for (value, text) in &self.x.ticks {
                @let x = self.x(*value);
                line.axis x1=(x) x2=(x) y1=(bottom) y2=(bottom + 4.0) {}
                text.tick x=(x) y=(bottom + 17.0) text-anchor="middle" { (text) }
            }
            line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
            text.name x=(rounded((LEFT + right) / 2.0)) y=(HEIGHT - 6.0) text-anchor="middle" { (self.x.name) }
            @let middle = rounded((TOP + bottom) / 2.0);
            text.name text-anchor="middle" transform={ "translate(11 " (middle) ") rotate(-90)" } {
                (self.y.name)
            }
            @for level in &self.levels {
                @let y = self.y(level.y);
                line.level x1=(LEFT) x2=(right) y1=(y) y2=(y) {}
            }
            @for series in &self.series { (self.line(series)) }
            @let labels = self.labels();
            @for [from, to] in labels.iter().filter_map(Label::leader) {
                line.leader x1=(rounded(from.0)) y1=(rounded(from.1)) x2=(rounded(to.0)) y2=(rounded(to.1)) {}
            }
            @for label in labels {
                text.label x=(rounded(label.x)) y=(rounded(label.y)) text-anchor=(label.anchor) { (label.text) }
            }
        }
    }

    fn line(&self, series: &Series) -> Markup {
        let points: Vec<(f64, f64)> = series.points.iter().map(|(x, y)| (self.x(*x), self.y(*y))).collect();
        let joined: Vec<String> = points.iter().map(|(x, y)| format!("{x},{y}")).collect();
        html! {
            g class={ "series-" (series.style % STYLES) } {
                @if points.len() > 1 { polyline.line points=(joined.join(" ")) {} }
                // Of a labelled line the last point is what counts.
                @for (place, (x, y)) in points.iter().enumerate() {
                    @let last = place + 1 == points.len();
                    (marker(series.style, *x, *y, if last { 5.0 } else { 3.0 }))
                }
                @for (x, y) in &series.scattered { circle.mark cx=(self.x(*x)) cy=(self.y(*y)) r="2.6" {} }
            }
        }
    }

    /// Each label where it covers least: no other label, and as little of lines and points as can be.
    fn labels(&self) -> Vec<Label<'_>> {
        let (drawn, marks) = (self.drawn(), self.marks());
        let wanted = self.wanted_labels();
        let mut placed: Vec<Option<Label>> = vec![None; wanted.len()];
        // The first time a label knows only those before it, later all others.
        for _ in 0..SWEEPS {
            for (index, wanted) in wanted.iter().enumerate() {
                placed[index] = None;
                let others: Vec<Label> = placed.iter().copied().flatten().collect();
                let cost = |label: &Label| {
                    let area = label.area();
                    let lines = drawn.iter().filter(|point| area.holds(**point)).count();
                    // A hidden mark is worse than a hidden piece of a line, and another label is worse than both.
                    let hidden = marks.iter().filter(|mark| area.widened(4.0).holds(**mark)).count();
                    let crossed = others.iter().filter(|other| crosses(label, other)).count();
                    let met = others.iter().filter(|other| other.area().meets(&area)).count();
                    lines + 30 * (hidden + crossed) + 1000 * (met + area.outside())
                };
                // The first of equals.
                placed[index] = wanted.labels().min_by_key(cost);
            }
        }
        placed.into_iter().flatten().collect()
    }

    /// What is to be written, and where it could be: levels first, since they have fewer places.
    fn wanted_labels(&self) -> Vec<Wanted<'_>> {
        let levels = self.levels.iter().map(|level| Wanted {
            text: &level.label,
            of: None,
            places: places_along(self.y(level.y)),
        });
        let series = self.series.iter().filter_map(|series| {
            let (x, y) = *series.points.last()?;
            let point = (self.x(x), self.y(y));
            Some(Wanted {
                text: series.label.as_deref()?,
                of: Some(point),
                places: places_around(point),
            })
        });
        levels.chain(series).collect()
    }

    /// The marks that stand for themselves.
    fn marks(&self) -> Vec<(f64, f64)> {
        let of_series = |series: &'_ Series| {
            let marks = series.points.last().into_iter().chain(&series.scattered);
            marks.map(|(x, y)| (self.x(*x), self.y(*y))).collect::<Vec<_>>()
        };
        self.series.iter().flat_map(of_series).collect()
    }

    /// Points close to each other along all lines.
    fn drawn(&self) -> Vec<(f64, f64)> {
        let between = |(a, b): ((f64, f64), (f64, f64))| {
            (0..=16).map(move |part| {
                let share = f64::from(part) / 16.0;
                (a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1))
            })
        };
        let of_series = |series: &Series| {
            let points: Vec<(f64, f64)> = series.points.iter().map(|(x, y)| (self.x(*x), self.y(*y))).collect();
            let pairs: Vec<_> = points.windows(2).map(|pair| (pair[0], pair[1])).collect();
            let scattered = series.scattered.iter().map(|(x, y)| (self.x(*x), self.y(*y)));
            points
                .into_iter()
                .chain(scattered)
                .chain(pairs.into_iter().flat_map(between))
                .collect::<Vec<_>>()
        };
        let series = self.series.iter().flat_map(of_series);
        let levels = self.levels.iter().map(|level| {
            let y = self.y(level.y);
            ((LEFT, y), (WIDTH - RIGHT, y))
        });
        series.chain(levels.flat_map(between)).collect()
    }

    fn x(&self, value: f64) -> f64 {
        rounded(LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT))
    }

    fn y(&self, value: f64) -> f64 {
        // What lies below the axis is drawn on it.
        rounded(HEIGHT - BOTTOM - self.y.place(value).max(0.0) * (HEIGHT - BOTTOM - TOP))
    }
}

/// A style without variables, which not every reader of SVG knows: with the page's light colours in their place.
fn in_light_colours(style: &str) -> String {
    let (light, _) = PAGE_STYLE.split_once('}').unwrap_or_default();
    let declarations = light
        .split(';')
        .filter_map(|declaration| declaration.rsplit_once("--")?.1.split_once(':'));
    declarations.fold(style.to_owned(), |style, (name, value)| {
        style.replace(&format!("var(--{name})"), value.trim())
    })
}

/// Where the label of a level could be: above it and below it.
fn places_along(y: f64) -> Vec<Place> {
    let (left, right) = (LEFT + 4.0, WIDTH - RIGHT - 4.0);
    let along = [(left, "start"), (right, "end"), ((left + right) / 2.0, "middle")];
    let places = along.into_iter();
    places
        .flat_map(|(x, anchor)| [(x, y - 5.0, anchor), (x, y + 14.0, anchor)])
        .collect()
}

/// Where the label of a point could be: beside it, or as far from it as need be, with a line between the two.
fn places_around((x, y): (f64, f64)) -> Vec<Place> {
    let near = [
        (x + 9.0, y + 4.0, "start"),
        (x - 9.0, y + 4.0, "end"),
        (x, y - 10.0, "middle"),
        (x, y + 19.0, "middle"),
        (x + 7.0, y - 12.0, "start"),
        (x - 7.0, y - 12.0, "end"),
        (x + 7.0, y + 20.0, "start"),
        (x - 7.0, y + 20.0, "end"),
    ];
    let far = [26.0, 42.0, 60.0, 80.0].into_iter().flat_map(|far| {
        let ways = [(0.0, "middle"), (0.5, "start"), (-0.5, "end")];
        let ways = ways.into_iter().flat_map(move |(aside, anchor)| {
            [
                (x + aside * far, y - far, anchor),
                (x + aside * far, y + far + 8.0, anchor),
            ]
        });
        let sides = [(x + far, y + 4.0, "start"), (x - far, y + 4.0, "end")];
        ways.chain(sides)
    });
    near.into_iter().chain(far).collect()
}

/// Whether the line of either label runs through the other one or its line.
fn crosses(one: &Label, other: &Label) -> bool {
    let along = |label: &Label| {
        let line = label.leader().into_iter();
        line.flat_map(|[from, to]| {
            (0..=8).map(move |part| {
                let share = f64::from(part) / 8.0;
                (from.0 + share * (to.0 - from.0), from.1 + share * (to.1 - from.1))
            })
        })
        .collect::<Vec<(f64, f64)>>()
    };
    let through = |line: &Label, text: &Label| along(line).iter().any(|point| text.area().holds(*point));
    through(one, other) || through(other, one)
}

/// The marker of a series.
pub fn marker(style: usize, x: f64, y: f64, radius: f64) -> Markup {
    let r = radius;
    let polygon = |corners: &[(f64, f64)]| {
        let corners = corners
            .iter()
            .map(|(dx, dy)| format!("{},{}", rounded(x + dx * r), rounded(y + dy * r)));
        let corners: Vec<String> = corners.collect();
        html! { polygon.mark points=(corners.join(" ")) {} }
    };
    match style % STYLES {
        0 => html! { circle.mark cx=(rounded(x)) cy=(rounded(y)) r=(r) {} },
        1 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        2 => polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]),
        3 => polygon(&[(0.0, -1.3), (1.1, 0.0), (0.0, 1.3), (-1.1, 0.0)]),
        4 => polygon(&[(0.0, 1.2), (1.1, -0.8), (-1.1, -0.8)]),
        5 => polygon(&[
            (0.0, -1.5),
            (0.38, -0.52),
            (1.43, -0.46),
            (0.61, 0.2),
            (0.88, 1.21),
            (0.0, 0.64),
            (-0.88, 1.21),
            (-0.61, 0.2),
            (-1.43, -0.46),
            (-0.38, -0.52),
        ]),
        _ => polygon(&[
            (-1.2, -0.4),
            (-0.4, -0.4),
            (-0.4, -1.2),
            (0.4, -1.2),
            (0.4, -0.4),
            (1.2, -0.4),
            (1.2, 0.4),
            (0.4, 0.4),
            (0.4, 1.2),
            (-0.4, 1.2),
            (-0.4, 0.4),
            (-1.2, 0.4),
        ]),
    }
}

/// A tenth of a pixel is enough, and the same on every platform.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        let all = [
            0.0,
            999.0,
            1000.0,
            1_362_672.0,
            10_901_376.0,
            140_027_328.0,
            999_999_999.0,
            2e6,
        ];
        let words = [
            "0 B", "999 B", "1 kB", "1.36 MB", "10.9 MB", "140 MB", "1.00 GB", "2 MB",
        ];
        assert_eq!(all.map(|count| bytes(count).replace('\u{a0}', " ")), words);
    }

    #[test]
    fn axes_reach_beyond_their_values() {
        for highest in [0.0, 0.004, 0.31, 0.758, 1.0, 1.2, 37.0, 900.0] {
            let axis = Axis::from_zero("y", highest);
            assert!(
                axis.to >= highest && axis.ticks.len() >= 2 && axis.ticks.len() <= 8,
                "{axis:?}"
            );
        }
        let values = |axis: &Axis| {
            axis.ticks
                .iter()
                .map(|(_, text)| text.clone())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            values(&Axis::around("y", &[0.71, 0.76])),
            "0.71 0.72 0.73 0.74 0.75 0.76"
        );
        assert_eq!(
            values(&Axis::around("y", &[0.751, 0.752])),
            "0.70 0.71 0.72 0.73 0.74 0.75 0.76"
        );
        assert!(Axis::around("y", &[0.03, 0.76]).begins_at_zero());
        let most = Axis::around_most("y", &[0.02, 0.71, 0.72, 0.76]);
        assert!(most.is_below(0.02) && !most.is_below(0.71));
        // Two are no exception.
        assert!(Axis::around_most("y", &[0.02, 0.03, 0.71, 0.76]).begins_at_zero());
        let axis = Axis::bytes("x", &[1.4e6, 1.4e8]);
        let words: Vec<&str> = axis.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(words, ["1\u{a0}MB", "10\u{a0}MB", "100\u{a0}MB"]);
        assert!((0.0..0.2).contains(&axis.place(1.4e6)) && (0.8..1.0).contains(&axis.place(1.4e8)));
    }

    #[test]
    fn labels_do_not_lie_on_each_other() {
        let series = |y: f64| Series {
            style: 0,
            label: Some(y.to_string()),
            points: vec![(1.0, y)],
            scattered: vec![],
        };
        let plot = Plot {
            alternative: String::new(),
            x: Axis::counting("round", 8),
            y: Axis::from_zero("Dice", 1.0),
            series: vec![series(0.75), series(0.76), series(0.2)],
            levels: vec![],
        };
        let labels = plot.labels();
        assert_eq!(labels.len(), 3);
        for (place, label) in labels.iter().enumerate() {
            assert_eq!(label.area().outside(), 0, "{label:?}");
            assert!(
                labels[..place].iter().all(|other| !other.area().meets(&label.area())),
                "{labels:?}"
            );
        }
    }
}
