//! Which places a 3x3 convolution with padding 1 brings together.

/// What a tap of a neighbourhood finds: a place's number, or nothing beyond the edge. Taps are in order of rows.
pub type Taps = [Option<usize>; 9];

/// The places `[batch, row, column, channel]` of an image, and those that see it, each the centre of a neighbourhood.
#[derive(Debug, Clone, Copy)]
pub struct Neighbourhoods {
    pub batch: usize,
    /// Rows and columns.
    pub inputs: [usize; 2],
    /// Rows and columns of the centres.
    pub outputs: [usize; 2],
    pub channels: usize,
    /// Places from one centre to the next.
    stride: usize,
}

impl Neighbourhoods {
    /// Of an image with these extents.
    pub fn new(extents: &[usize], stride: usize) -> Self {
        let inputs = [extents[1], extents[2]];
        Self {
            batch: extents[0],
            inputs,
            outputs: inputs.map(|length| length.div_ceil(stride)),
            channels: extents[3],
            stride,
        }
    }

    /// Places of the image.
    pub fn input_places(self) -> usize {
        self.batch * self.inputs[0] * self.inputs[1]
    }

    /// Centres.
    pub fn output_places(self) -> usize {
        self.batch * self.outputs[0] * self.outputs[1]
    }

    /// The places of the image that a centre sees.
    pub fn seen(self, output: usize) -> Taps {
        pairs(output, self.outputs, self.inputs, |centre, tap| {
            (centre * self.stride + tap).checked_sub(1)
        })
    }

    /// The centres that see a place of the image, each at its tap.
    pub fn seeing(self, input: usize) -> Taps {
        pairs(input, self.inputs, self.outputs, |place, tap| {
            let centre = (place + 1).checked_sub(tap)?;
            centre.is_multiple_of(self.stride).then_some(centre / self.stride)
        })
    }
}

/// The partners of a place in one grid among those of another; `partner` finds them along one axis.
fn pairs(
    place: usize,
    [rows, columns]: [usize; 2],
    [to_rows, to_columns]: [usize; 2],
    partner: impl Fn(usize, usize) -> Option<usize>,
) -> Taps {
    let (batch, row, column) = (place / columns / rows, place / columns % rows, place % columns);
    let along = |place, length| -> [Option<usize>; 3] {
        std::array::from_fn(|tap| partner(place, tap).filter(|&partner| partner < length))
    };
    let (down, across) = (along(row, to_rows), along(column, to_columns));
    std::array::from_fn(|tap| Some((batch * to_rows + down[tap / 3]?) * to_columns + across[tap % 3]?))
}
