//! Distances between the surfaces of two masks, weighted by area, in mm.
//!
//! Implementations of such distances differ by tens of millimetres on the same masks (Podobnik and Vrtovec, arXiv
//! 2410.02630), so a figure means little without its definition. Ours is that of Nikolov and others, Deep learning to
//! achieve clinically applicable segmentation of head and neck anatomy for radiotherapy (arXiv 1809.04430), and equals
//! their package `surface-distance` 0.1 (`tests/tests/metrics.rs`). MedPy's, which counts voxels of the mask's border,
//! is another one.

use std::array;
use std::ops::Range;

use flapsam_model::volume::Volume;

use super::distance::distances;

/// How labels lie in space.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Voxels along each axis; the last one runs fastest.
    pub dims: [usize; 3],
    /// Distance between voxel centres along each axis, mm.
    pub spacing: [f64; 3],
}

impl Grid {
    /// That of a volume's labels in axial order; `None` if its axes are not at right angles, on which areas and distances
    /// here rest.
    pub fn axial(volume: &Volume) -> Option<Self> {
        let (axial, spacing) = (volume.axial(), volume.spacing());
        volume.has_right_angles().then(|| Self {
            dims: axial.dims,
            spacing: axial.axes().map(|axis| spacing[axis]),
        })
    }
}

/// A piece of one surface.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Element {
    /// From the nearest element of the other surface, mm.
    distance: f64,
    /// mm².
    area: f64,
}

/// The surfaces of two masks of a class, element by element.
///
/// An element is the surface between eight neighbouring voxel centres of which some are in the mask and some are not;
/// outside of the volume none is. It lies in the middle of the eight.
#[derive(Debug, Clone, PartialEq)]
pub struct SurfaceDistances {
    /// The elements of either surface, the nearest first.
    surfaces: [Vec<Element>; 2],
}

impl SurfaceDistances {
    /// Measures how far the surfaces of a class are apart in two label maps on one grid.
    pub fn new(got: &[u8], want: &[u8], class: u8, grid: Grid) -> Self {
        let masks = [got, want].map(|labels| Mask { labels, class });
        let Some(ranges) = bounding_box(masks, grid.dims) else {
            return Self {
                surfaces: [Vec::new(), Vec::new()],
            };
        };
        let dims = ranges.clone().map(|range| range.len() + 1);
        let areas = cell_areas(grid.spacing);
        let codes = masks.map(|mask| cell_codes(mask, grid.dims, &ranges));
        let elements = |one: &[u8], other: &[u8]| {
            let distances = distances(|index| is_surface(other[index]), dims, grid.spacing);
            let on_surface = one.iter().zip(distances).filter(|(code, _)| is_surface(**code));
            let mut elements: Vec<Element> = on_surface
                .map(|(&code, distance)| Element {
                    distance,
                    area: areas[code as usize],
                })
                .collect();
            let order = |one: &Element, other: &Element| {
                let by_distance = one.distance.total_cmp(&other.distance);
                by_distance.then(one.area.total_cmp(&other.area))
            };
            elements.sort_unstable_by(order);
            elements
        };
        let [got, want] = &codes;
        Self {
            surfaces: [elements(got, want), elements(want, got)],
        }
    }

    /// The distance, mm, within which the nearest 95 % of a surface's area lie from the other surface; the larger one
    /// of the two surfaces. `None` where a mask is empty.
    pub fn hausdorff_95(&self) -> Option<f64> {
        let [got, want] = self.surfaces.each_ref().map(|surface| distance_of_share(surface, 0.95));
        Some(got?.max(want?))
    }

    /// The share of both surfaces' area that lies within a tolerance, mm, of the other surface. Both empty is 1, one
    /// empty 0.
    pub fn dice(&self, tolerance: f64) -> f64 {
        let area_of = |surface: &[Element]| surface.iter().map(|element| element.area).sum::<f64>();
        let within = |surface: &Vec<Element>| {
            let count = surface.partition_point(|element| element.distance <= tolerance);
            area_of(&surface[..count])
        };
        let [got, want] = &self.surfaces;
        match got.is_empty() && want.is_empty() {
            true => 1.0,
            false => (within(got) + within(want)) / (area_of(got) + area_of(want)),
        }
    }
}

/// Where the sorted elements' area first reaches a share of it all.
fn distance_of_share(surface: &[Element], share: f64) -> Option<f64> {
    let total: f64 = surface.iter().map(|element| element.area).sum();
    let mut area = 0.0;
    let reached = surface.iter().find(|element| {
        area += element.area;
        area / total >= share
    });
    reached.or(surface.last()).map(|element| element.distance)
}

/// A class of a label map.
#[derive(Debug, Clone, Copy)]
struct Mask<'a> {
    labels: &'a [u8],
    class: u8,
}

impl Mask<'_> {
    fn holds(self, index: usize) -> bool {
        self.labels[index] == self.class
    }
}

/// The smallest box that holds both masks; `None` if both are empty.
fn bounding_box(masks: [Mask; 2], dims: [usize; 3]) -> Option<[Range<usize>; 3]> {
    let (mut low, mut high) = ([usize::MAX; 3], [0; 3]);
    for (index, place) in places(dims.map(|dim| 0..dim)).enumerate() {
        if masks.iter().any(|mask| mask.holds(index)) {
            low = array::from_fn(|axis| low[axis].min(place[axis]));
            high = array::from_fn(|axis| high[axis].max(place[axis] + 1));
        }
    }
    (low[0] < high[0]).then(|| array::from_fn(|axis| low[axis]..high[axis]))
}

/// Every place in a box, in the order of memory.
fn places(ranges: [Range<usize>; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [slices, rows, columns] = ranges;
    slices.flat_map(move |slice| {
        let columns = columns.clone();
        rows.clone()
            .flat_map(move |row| columns.clone().map(move |column| [slice, row, column]))
    })
}

/// For each cell between eight voxel centres in and around a box, which of the eight are in the mask: one bit each,
/// numbered by [`CORNERS`].
fn cell_codes(mask: Mask, dims: [usize; 3], ranges: &[Range<usize>; 3]) -> Vec<u8> {
    let [slices, rows, columns] = ranges.clone().map(|range| range.len() + 1);
    let mut codes = vec![0; slices * rows * columns];
    for place in places(ranges.clone()) {
        if mask.holds((place[0] * dims[1] + place[1]) * dims[2] + place[2]) {
            let [slice, row, column] = array::from_fn(|axis| place[axis] - ranges[axis].start);
            for (bit, [by_slice, by_row, by_column]) in CORNERS.into_iter().enumerate() {
                // The voxel is this corner of the cell that begins as far before it.
                let cell = ((slice + 1 - by_slice) * rows + row + 1 - by_row) * columns + column + 1 - by_column;
                codes[cell] |= 1 << bit;
            }
        }
    }
    codes
}

fn is_surface(code: u8) -> bool {
    code != 0 && code != u8::MAX
}

/// The corners of a cell: bit `axis` of a corner's number is its place along that axis.
const CORNERS: [[usize; 3]; 8] = {
    let mut corners = [[0; 3]; 8];
    let mut corner = 0;
    while corner < 8 {
        corners[corner] = [corner & 1, corner >> 1 & 1, corner >> 2 & 1];
        corner += 1;
    }
    corners
};

/// The area, mm², of the surface within a cell, by its code.
///
/// The surface keeps the fewer corners from the others; with four of either, both give the same area. Corners that are
/// not joined by an edge are kept apart.
fn cell_areas(spacing: [f64; 3]) -> [f64; 256] {
    array::from_fn(|code| {
        let fewer = match code.count_ones() {
            0..=4 => code as u8,
            _ => !code as u8,
        };
        pieces(fewer).into_iter().map(|piece| piece_area(piece, spacing)).sum()
    })
}

/// The corners of a set by joined pieces.
fn pieces(mut corners: u8) -> Vec<u8> {
    let mut pieces = Vec::new();
    while corners != 0 {
        let mut piece = corners & corners.wrapping_neg();
        loop {
            let grown = (0..8).filter(|&corner| links(piece, corner) != [false; 3]);
            let grown = grown.fold(piece, |all, corner| all | 1 << corner) & corners;
            if grown == piece {
                break;
            }
            piece = grown;
        }
        pieces.push(piece);
        corners &= !piece;
    }
    pieces
}

/// Along which axes a corner's neighbour is in a piece.
fn links(piece: u8, corner: usize) -> [bool; 3] {
    array::from_fn(|axis| piece >> (corner ^ 1 << axis) & 1 == 1)
}

/// The area, mm², of the polygon through the middles of the edges that lead out of a piece of at most four joined
/// corners. A polygon that is not flat is folded along lines between its points, as said below.
fn piece_area(piece: u8, spacing: [f64; 3]) -> f64 {
    let [x, y, z] = spacing;
    // Of a cell's face across each axis. The areas below are shares of it, of what a plane along one axis and diagonal
    // to the others cuts, and of a plane diagonal to all.
    let faces = [y * z, x * z, x * y];
    let length = |parts: &dyn Fn(usize) -> f64| (0..3).map(|axis| parts(axis).powi(2)).sum::<f64>().sqrt();
    let along = |axis: usize| length(&|part| if part == axis { 0.0 } else { faces[part] });
    let diagonal = length(&|part| faces[part]);

    let corners = (0..8).filter(|corner| piece >> corner & 1 == 1);
    let corner_links: Vec<[bool; 3]> = corners.map(|corner| links(piece, corner)).collect();
    let degree = |links: &[bool; 3]| links.iter().filter(|&&linked| linked).count();
    let linked = [0, 1, 2].map(|axis| corner_links.iter().any(|links| links[axis]));
    let axis_where = |links: [bool; 3], wanted: bool| links.iter().position(|&linked| linked == wanted).unwrap_or(0);
    match (corner_links.len(), corner_links.iter().map(degree).max()) {
        // A triangle around one corner.
        (1, _) => diagonal / 8.0,
        // A rectangle along the edge between two.
        (2, _) => along(axis_where(linked, true)) / 2.0,
        // Around three in a face: the triangle over them, and a trapezoid before the two outer ones.
        (3, _) => faces[axis_where(linked, false)] / 2.0 + diagonal * 3.0 / 8.0,
        // The rectangle over four in a face.
        (_, Some(2)) if degree(&linked) == 2 => faces[axis_where(linked, false)],
        // The flat hexagon around a corner and its three neighbours.
        (_, Some(3)) => diagonal * 3.0 / 4.0,
        // The hexagon around four in a row through the cell: the triangle through every other point (3/8), and one
        // beyond each of its sides, of which two lie along the row's first and last edge and one is diagonal (1/8).
        _ => {
            let ends = corner_links.iter().filter(|links| degree(links) == 1);
            let beyond: f64 = ends.map(|links| along(axis_where(*links, true)) / 4.0).sum();
            diagonal / 2.0 + beyond
        }
    }
}
