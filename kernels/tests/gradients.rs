//! Every operation against its definition in 64 bits: its values, and its gradients against finite differences.

#![cfg(feature = "autodiff")]

use burn::tensor::{Device, Tensor, TensorData};
use flapsam_kernels::{
    Alignment, Positions, Share, add_row, arrange, attention, conv3x3, cross_entropy_and_dice, depthwise3x3, gelu,
    layer_norm, linear, matmul, matmul_transposed, resize_bilinear, scale, scale_columns, sigmoid, softmax, sum_rows,
};
use proptest::prelude::*;

/// Values in [-1, 1] from a seed.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        2.0 * (state as f32 / u32::MAX as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Compares an operation of flat inputs, of the given lengths, with its definition.
fn check(
    lengths: &[usize],
    seed: u32,
    operation: impl Fn(&[Tensor<1>]) -> Tensor<1>,
    definition: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    check_terms(1e-2, lengths, seed, operation, definition);
}

/// The same of an operation whose gradients are sums of terms of at least this size, which may cancel, as its values may.
fn check_terms(
    terms: f64,
    lengths: &[usize],
    seed: u32,
    operation: impl Fn(&[Tensor<1>]) -> Tensor<1>,
    definition: impl Fn(&[Vec<f64>]) -> Vec<f64>,
) {
    let values: Vec<Vec<f32>> = lengths
        .iter()
        .zip(seed..)
        .map(|(&count, seed)| noise(count, seed))
        .collect();
    let exact: Vec<Vec<f64>> = values
        .iter()
        .map(|values| values.iter().map(|&value| value.into()).collect())
        .collect();
    let leaves: Vec<Tensor<1>> = values
        .iter()
        .map(|values| {
            Tensor::from_floats(values.as_slice(), &Device::flex())
                .autodiff()
                .require_grad()
        })
        .collect();
    let result = operation(&leaves);
    let found: Vec<f32> = result.clone().inner().try_into_vec_as().unwrap();
    let want = definition(&exact);
    assert_eq!(found.len(), want.len());
    let size = want
        .iter()
        .fold(f64::max(1.0, 10.0 * terms), |size, value| size.max(value.abs()));
    for (found, want) in found.iter().zip(&want) {
        assert!((f64::from(*found) - want).abs() < 1e-5 * size, "{found} for {want}");
    }

    let slopes = noise(want.len(), seed ^ 0x5eed);
    let along = |inputs: &[Vec<f64>]| -> f64 {
        let pairs = definition(inputs).into_iter().zip(&slopes);
        pairs.map(|(value, &slope)| value * f64::from(slope)).sum()
    };
    let weights = Tensor::<1>::from_floats(slopes.as_slice(), &Device::flex());
    let gradients = (result * weights).sum().backward();
    for (number, leaf) in leaves.iter().enumerate() {
        let found: Vec<f32> = leaf
            .grad(&gradients)
            .expect("a gradient of every input")
            .try_into_vec_as()
            .unwrap();
        let step = 1e-6;
        let moved = |place: usize, by: f64| {
            let mut inputs = exact.clone();
            inputs[number][place] += by;
            along(&inputs)
        };
        let want = (0..found.len()).map(|place| (moved(place, step) - moved(place, -step)) / (2.0 * step));
        let want: Vec<f64> = want.collect();
        let size = want.iter().fold(terms, |size: f64, value| size.max(value.abs()));
        for (place, (found, want)) in found.iter().zip(&want).enumerate() {
            let error = (f64::from(*found) - want).abs();
            assert!(error < 1e-4 * size, "input {number}, place {place}: {found} for {want}");
        }
    }
}

fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let count = x.dims().iter().product::<usize>();
    x.reshape([count])
}

/// `a [rows, depth]` times `b [depth, columns]`.
fn product(a: &[f64], b: &[f64], depth: usize, columns: usize) -> Vec<f64> {
    let row = |row: &[f64]| -> Vec<f64> {
        let entry = |column: usize| {
            row.iter()
                .enumerate()
                .map(|(k, value)| value * b[k * columns + column])
                .sum()
        };
        (0..columns).map(entry).collect()
    };
    match depth {
        0 => Vec::new(),
        _ => a.chunks_exact(depth).flat_map(row).collect(),
    }
}

fn transposed(values: &[f64], columns: usize) -> Vec<f64> {
    let rows = values.len() / columns;
    (0..columns)
        .flat_map(|column| (0..rows).map(move |row| values[row * columns + column]))
        .collect()
}

fn softmax_of(line: &[f64]) -> Vec<f64> {
    let powers: Vec<f64> = line.iter().map(|x| x.exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Attention of one head: `[query, width]`, twice `[key, width]`, and what is added to the scores.
fn attention_of(
    q: &[f64],
    k: &[f64],
    v: &[f64],
    width: usize,
    scale: f64,
    added: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let keys = k.len() / width;
    let scores = product(q, &transposed(k, width), width, keys);
    let line = |(query, scores): (usize, &[f64])| -> Vec<f64> {
        let scores = scores
            .iter()
            .enumerate()
            .map(|(key, score)| score * scale + added(query, key));
        product(&softmax_of(&scores.collect::<Vec<_>>()), v, keys, width)
    };
    scores.chunks_exact(keys).enumerate().flat_map(line).collect()
}

/// One head of `[batch, token, channel]`.
fn head(values: &[f64], batch: usize, number: usize, tokens: usize, heads: usize, width: usize) -> Vec<f64> {
    let channels = heads * width;
    let token = |token: usize| {
        let start = (batch * tokens + token) * channels + number * width;
        values[start..start + width].to_vec()
    };
    (0..tokens).flat_map(token).collect()
}

/// Puts heads `[batch][head][token, width]` side by side.
fn joined(heads: Vec<Vec<Vec<f64>>>, tokens: usize, width: usize) -> Vec<f64> {
    let batch = |heads: Vec<Vec<f64>>| -> Vec<f64> {
        let token = |token: usize| {
            heads
                .iter()
                .flat_map(move |head| head[token * width..(token + 1) * width].to_vec())
        };
        (0..tokens).flat_map(token).collect()
    };
    heads.into_iter().flat_map(batch).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_layers(rows in 1usize..7, inputs in 1usize..20, outputs in 1usize..9, turned: bool, seed: u32) {
        check(&[rows * inputs, inputs * outputs, outputs], seed, |x| {
            // As it lies in a checkpoint, or a view of another order.
            let weight = match turned {
                false => x[1].clone().reshape([outputs, inputs]),
                true => x[1].clone().reshape([inputs, outputs]).transpose(),
            };
            flat(linear(x[0].clone().reshape([1, rows, inputs]), weight, Some(x[2].clone())))
        }, |x| {
            let weight = if turned { x[1].clone() } else { transposed(&x[1], inputs) };
            let out = product(&x[0], &weight, inputs, outputs);
            out.iter().enumerate().map(|(place, value)| value + x[2][place % outputs]).collect()
        });
    }

    #[test]
    fn products(count in 1usize..3, rows in 1usize..7, depth in 1usize..20, columns in 1usize..9, seed: u32) {
        check(&[count * rows * depth, count * depth * columns], seed, |x| {
            flat(matmul(x[0].clone().reshape([count, rows, depth]), x[1].clone().reshape([count, depth, columns])))
        }, |x| {
            let pairs = x[0].chunks_exact(rows * depth).zip(x[1].chunks_exact(depth * columns));
            pairs.flat_map(|(a, b)| product(a, b, depth, columns)).collect()
        });
        check(&[count * rows * depth, count * columns * depth], seed, |x| {
            let (a, b) = (x[0].clone().reshape([count, rows, depth]), x[1].clone().reshape([count, columns, depth]));
            flat(matmul_transposed(a, b))
        }, |x| {
            let pairs = x[0].chunks_exact(rows * depth).zip(x[1].chunks_exact(depth * columns));
            pairs.flat_map(|(a, b)| product(a, &transposed(b, depth), depth, columns)).collect()
        });
    }

    #[test]
    fn rows_and_columns(rows in 1usize..600, columns in 1usize..4, seed: u32) {
        // Sums and gradients are of hundreds of terms up to 1, and some end near 0.
        let matrix = |x: &Tensor<1>| x.clone().reshape([rows, columns]);
        check_terms(1.0, &[rows * columns, columns], seed, |x| flat(add_row(matrix(&x[0]), x[1].clone())), |x| {
            x[0].iter().enumerate().map(|(place, value)| value + x[1][place % columns]).collect()
        });
        check_terms(1.0, &[rows * columns, columns], seed, |x| flat(scale_columns(matrix(&x[0]), x[1].clone())), |x| {
            x[0].iter().enumerate().map(|(place, value)| value * x[1][place % columns]).collect()
        });
        check_terms(1.0, &[rows * columns], seed, |x| sum_rows(matrix(&x[0])), |x| {
            (0..columns).map(|column| x[0].iter().skip(column).step_by(columns).sum()).collect()
        });
        check_terms(1.0, &[rows * columns, 1], seed, |x| scale(x[0].clone(), x[1].clone()), |x| {
            x[0].iter().map(|value| value * x[1][0]).collect()
        });
    }

    #[test]
    fn norms(rows in 1usize..5, width in 2usize..40, seed: u32) {
        let epsilon = 1e-5;
        // Of numbers that hardly differ the mean's last bit is a part of what is left: no f32 has their norm to 1e-4.
        let deviation = |line: &[f32]| {
            let mean = line.iter().sum::<f32>() / width as f32;
            (line.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / width as f32).sqrt()
        };
        prop_assume!(noise(rows * width, seed).chunks_exact(width).all(|line| deviation(line) > 0.1));
        // Each is a sum of terms as large as one over the deviation; of two numbers they cancel but for epsilon's share.
        check_terms(0.1, &[rows * width, width, width], seed, |x| {
            flat(layer_norm(x[0].clone().reshape([rows, width]), x[1].clone(), x[2].clone(), epsilon))
        }, |x| {
            let line = |line: &[f64]| -> Vec<f64> {
                let mean = line.iter().sum::<f64>() / width as f64;
                let variance = line.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
                let normed = line.iter().map(|x| (x - mean) / (variance + f64::from(epsilon as f32)).sqrt());
                normed.zip(x[1].iter().zip(&x[2])).map(|(normed, (weight, bias))| normed * weight + bias).collect()
            };
            x[0].chunks_exact(width).flat_map(line).collect()
        });
    }

    #[test]
    fn activations(outer in 1usize..4, inner in 1usize..30, spread in 1f64..8.0, seed: u32) {
        let count = outer * inner;
        check(&[count], seed, |x| gelu(x[0].clone() * spread), |x| {
            let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
            x[0].iter().map(|x| gelu(x * spread)).collect()
        });
        check(&[count], seed, |x| sigmoid(x[0].clone() * spread), |x| {
            x[0].iter().map(|x| 1.0 / (1.0 + (-x * spread).exp())).collect()
        });
        for axis in [0, 1] {
            check(&[count], seed, |x| flat(softmax(x[0].clone().reshape([outer, inner]), axis)), |x| match axis {
                1 => x[0].chunks_exact(inner).flat_map(softmax_of).collect(),
                _ => {
                    let lines = transposed(&x[0], inner);
                    transposed(&lines.chunks_exact(outer).flat_map(softmax_of).collect::<Vec<_>>(), outer)
                }
            });
        }
    }

    #[test]
    fn attentions(
        batch in 1usize..3,
        heads in 1usize..3,
        queries in prop_oneof![1usize..6, 129usize..131],
        keys in 1usize..7,
        width in 1usize..5,
        seed: u32,
    ) {
        let (channels, scale) = (heads * width, 0.7);
        // The keys and values are parts of one tensor, as they are after one projection.
        check(&[batch * queries * channels, batch * keys * 2 * channels], seed, |x| {
            let q = x[0].clone().reshape([batch, queries, channels]);
            let both = x[1].clone().reshape([batch, keys, 2 * channels]);
            let part = |part| both.clone().narrow(2, part * channels, channels);
            flat(attention([q, part(0), part(1)], heads, f64::from(scale as f32), None))
        }, |x| {
            let parts = x[1].chunks_exact(channels).enumerate();
            let part = |which: usize| -> Vec<f64> {
                parts.clone().filter(|(number, _)| number % 2 == which).flat_map(|(_, part)| part.to_vec()).collect()
            };
            let (k, v) = (part(0), part(1));
            let one = |batch, number| {
                let q = head(&x[0], batch, number, queries, heads, width);
                let [k, v] = [&k, &v].map(|x| head(x, batch, number, keys, heads, width));
                attention_of(&q, &k, &v, width, f64::from(scale as f32), |_, _| 0.0)
            };
            let all = (0..batch).map(|batch| (0..heads).map(|number| one(batch, number)).collect());
            joined(all.collect(), queries, width)
        });
    }

    #[test]
    fn attentions_with_biases(heads in 1usize..3, grid in [1usize..4, 1usize..4], width in 1usize..4, seed: u32) {
        let [high, wide] = grid;
        let (tokens, channels) = (high * wide, heads * width);
        let batch = 2;
        let lengths = [vec![batch * tokens * channels; 3], vec![heads * tokens]].concat();
        check(&lengths, seed, |x| {
            let tokens = [0, 1, 2].map(|part: usize| x[part].clone().reshape([batch, tokens, channels]));
            let biases = x[3].clone().reshape([heads, high * wide]);
            flat(attention(tokens, heads, 0.5, Some(Positions::Biases { biases, grid })))
        }, |x| {
            let one = |batch, number: usize| {
                let [q, k, v] = [0, 1, 2].map(|part: usize| head(&x[part], batch, number, tokens, heads, width));
                attention_of(&q, &k, &v, width, 0.5, |query, key| {
                    let (down, across) = ((query / wide).abs_diff(key / wide), (query % wide).abs_diff(key % wide));
                    x[3][number * tokens + down * wide + across]
                })
            };
            let all = (0..batch).map(|batch| (0..heads).map(|number| one(batch, number)).collect());
            joined(all.collect(), tokens, width)
        });
    }

    #[test]
    fn attentions_with_positions(
        heads in 1usize..3,
        grid in prop_oneof![[1usize..4, 1usize..4], [12usize..13, 11usize..12]],
        width in 1usize..4,
        seed: u32,
    ) {
        let [high, wide] = grid;
        let (tokens, channels) = (high * wide, heads * width);
        let batch = 2;
        let lengths = [batch * tokens * channels; 3].into_iter().chain([(2 * high - 1) * width, (2 * wide - 1) * width]);
        // The larger grid has more than one tile of queries; its gradients are many, so of one input only.
        let lengths: Vec<usize> = lengths.collect();
        let operation = |x: &[Tensor<1>]| {
            let tokens = [0, 1, 2].map(|part: usize| x[part].clone().reshape([batch, tokens, channels]));
            let positions = Positions::Relative {
                rows: x[3].clone().reshape([2 * high - 1, width]),
                columns: x[4].clone().reshape([2 * wide - 1, width]),
                grid,
            };
            flat(attention(tokens, heads, 0.5, Some(positions)))
        };
        let definition = |x: &[Vec<f64>]| {
            let one = |batch, number| {
                let [q, k, v] = [0, 1, 2].map(|part: usize| head(&x[part], batch, number, tokens, heads, width));
                let along = |query: usize, table: &[f64], row: usize| -> f64 {
                    let pairs = q[query * width..][..width].iter().zip(&table[row * width..][..width]);
                    pairs.map(|(q, table)| q * table).sum()
                };
                attention_of(&q, &k, &v, width, 0.5, |query, key| {
                    along(query, &x[3], query / wide + high - 1 - key / wide)
                        + along(query, &x[4], query % wide + wide - 1 - key % wide)
                })
            };
            let all = (0..batch).map(|batch| (0..heads).map(|number| one(batch, number)).collect());
            joined(all.collect(), tokens, width)
        };
        if tokens < 16 {
            check(&lengths, seed, operation, definition);
        } else {
            let fixed: Vec<Vec<f32>> = lengths.iter().zip(seed..).map(|(&count, seed)| noise(count, seed)).collect();
            for part in [3, 4] {
                let tensors = |x: &[Tensor<1>]| -> Vec<Tensor<1>> {
                    let constant = |values: &Vec<f32>| Tensor::from_floats(values.as_slice(), &Device::flex());
                    let mut all: Vec<Tensor<1>> = fixed.iter().map(constant).collect();
                    all[part] = x[0].clone();
                    all
                };
                let exact = |x: &[Vec<f64>]| -> Vec<Vec<f64>> {
                    let mut all: Vec<Vec<f64>> =
                        fixed.iter().map(|values| values.iter().map(|&value| value.into()).collect()).collect();
                    all[part] = x[0].clone();
                    all
                };
                check(&[lengths[part]], seed, |x| operation(&tensors(x)), |x| definition(&exact(x)));
            }
        }
    }

    #[test]
    fn convolutions(
        batch in 1usize..3,
        rows in 1usize..6,
        columns in 1usize..6,
        inputs in 1usize..4,
        outputs in 1usize..4,
        stride in 1usize..3,
        seed: u32,
    ) {
        check(&[batch * rows * columns * inputs, outputs * inputs * 9], seed, |x| {
            let image = x[0].clone().reshape([batch, rows, columns, inputs]);
            flat(conv3x3(image, x[1].clone().reshape([outputs, inputs, 3, 3]), stride))
        }, |x| {
            let mut out = Vec::new();
            for (batch, row, column, output) in places(batch, rows.div_ceil(stride), columns.div_ceil(stride), outputs) {
                let taps = places(inputs, 3, 3, 1).map(|(input, down, across, _)| {
                    let place = [batch, row * stride + down, column * stride + across, input];
                    framed(&x[0], [rows, columns, inputs], place) * x[1][((output * inputs + input) * 3 + down) * 3 + across]
                });
                out.push(taps.sum());
            }
            out
        });
    }

    #[test]
    fn depthwise_convolutions(
        batch in 1usize..3,
        rows in 1usize..6,
        columns in 1usize..6,
        channels in 1usize..4,
        stride in 1usize..3,
        seed: u32,
    ) {
        check(&[batch * rows * columns * channels, channels * 9], seed, |x| {
            let image = x[0].clone().reshape([batch, rows, columns, channels]);
            flat(depthwise3x3(image, x[1].clone().reshape([channels, 1, 3, 3]), stride))
        }, |x| {
            let mut out = Vec::new();
            for (batch, row, column, channel) in places(batch, rows.div_ceil(stride), columns.div_ceil(stride), channels) {
                let taps = places(1, 3, 3, 1).map(|(_, down, across, _)| {
                    let place = [batch, row * stride + down, column * stride + across, channel];
                    framed(&x[0], [rows, columns, channels], place) * x[1][channel * 9 + down * 3 + across]
                });
                out.push(taps.sum());
            }
            out
        });
    }

    #[test]
    fn arrangements(images in 1usize..3, rows in 1usize..4, columns in 1usize..4, stages in 0usize..3, seed: u32) {
        let side = 1 << stages;
        check(&[images * rows * columns * side * side], seed, |x| {
            let list = x[0].clone().reshape([images, rows * columns, side * side]);
            flat(arrange(list, [rows, columns], stages))
        }, |x| {
            // From the whole image to a quarter of it and so on, as the children are numbered.
            let at = |image: usize, row: usize, column: usize| {
                let place = (image * rows + row / side) * columns + column / side;
                let child = (0..stages).rev().fold(0, |child, bit| {
                    4 * child + 2 * (row >> bit & 1) + (column >> bit & 1)
                });
                x[0][place * side * side + child]
            };
            places(images, rows * side, columns * side, 1).map(|(image, row, column, _)| at(image, row, column)).collect()
        });
    }

    #[test]
    fn resizings(rows in 1usize..6, columns in 1usize..6, to in [1usize..9, 1usize..9], corners: bool, seed: u32) {
        let images = 2;
        let alignment = if corners { Alignment::Corners } else { Alignment::Edges };
        check(&[images * rows * columns], seed, |x| {
            flat(resize_bilinear(x[0].clone().reshape([1, images, rows, columns]), to, alignment))
        }, |x| {
            let taps = |place: usize, from: usize, to: usize| {
                let position = match (corners, to) {
                    (true, 1) => 0.0,
                    (true, _) => place as f64 * (from - 1) as f64 / (to - 1) as f64,
                    (false, _) => ((place as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0),
                };
                let first = (position as usize).min(from - 1);
                (first, (first + 1).min(from - 1), position - first as f64)
            };
            let mut out = Vec::new();
            for (image, row, column, _) in places(images, to[0], to[1], 1) {
                let ((above, below, down), (left, right, across)) = (taps(row, rows, to[0]), taps(column, columns, to[1]));
                let at = |row: usize, column: usize| x[0][(image * rows + row) * columns + column];
                let mix = |row: usize| at(row, left) * (1.0 - across) + at(row, right) * across;
                out.push(mix(above) * (1.0 - down) + mix(below) * down);
            }
            out
        });
    }

    #[test]
    fn losses(slices in 1usize..3, classes in 1usize..4, rows in 1usize..5, columns in 1usize..8, seed: u32) {
        let area = rows * columns;
        let labels: Vec<i32> = noise(slices * area, seed ^ 7)
            .iter()
            .map(|&value| if value > 0.8 { -100 } else { (f64::from(value + 1.0) / 1.81 * classes as f64) as i32 })
            .collect();
        let share = Share { cross_entropy: 0.25, dice: 0.75 };
        check(&[slices * classes * area], seed, |x| {
            cross_entropy_and_dice(x[0].clone().reshape([slices, classes, rows, columns]), &labels, share)
        }, |x| {
            let smooth = f64::from(1e-5f32);
            let (mut entropy, mut counted) = (0.0, 0usize);
            let mut sums = vec![[0.0; 3]; classes];
            for (place, &label) in labels.iter().enumerate().filter(|(_, label)| **label >= 0) {
                let start = place / area * classes * area + place % area;
                let p = softmax_of(&(0..classes).map(|class| x[0][start + class * area]).collect::<Vec<_>>());
                entropy -= p[label as usize].ln();
                counted += 1;
                for (class, sums) in sums.iter_mut().enumerate() {
                    let one = if class == label as usize { 1.0 } else { 0.0 };
                    let terms = [p[class] * one, p[class] * p[class], one];
                    sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
                }
            }
            let dice = sums.iter().map(|[both, squares, ones]| (2.0 * both + smooth) / (squares + ones + smooth));
            let dice = 1.0 - dice.sum::<f64>() / classes as f64;
            let entropy = entropy / counted.max(1) as f64;
            vec![0.25 * entropy + 0.75 * dice, entropy, dice]
        });
    }
}

/// All numbers below four ends, the last one fastest.
fn places(a: usize, b: usize, c: usize, d: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |k| (k / (b * c * d), k / (c * d) % b, k / d % c, k % d))
}

/// The value at `[batch, row, column, channel]` of images in frames of zeros, one place wide.
fn framed(values: &[f64], [rows, columns, channels]: [usize; 3], place: [usize; 4]) -> f64 {
    let [batch, row, column, channel] = place;
    match (1..=rows).contains(&row) && (1..=columns).contains(&column) {
        true => values[((batch * rows + row - 1) * columns + column - 1) * channels + channel],
        false => 0.0,
    }
}

/// A sum over an empty axis is zero, and so are its gradients.
#[test]
fn no_terms_at_all() {
    let device = Device::flex();
    let empty = |shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(Vec::<f32>::new(), shape), &device);
    let out = matmul(empty([3, 0]), empty([0, 2]));
    assert_eq!(out.try_into_vec_as::<f32>().unwrap(), [0.0; 6]);
}
