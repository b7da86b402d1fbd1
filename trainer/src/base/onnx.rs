//! ONNX files: the operations of a graph, and the floats that it holds.

use std::collections::BTreeMap;
use std::path::Path;

use flapsam_model::checkpoint::{Floats, sha256};
use flapsam_model::foreign::recognise;
use flapsam_model::parameters::Array;
use rten_onnx::onnx::{DataLocation, DataType, TensorProto};
use rten_onnx::protobuf::varint::{MAX_VARINT_LEN, read_varint};
use rten_onnx::protobuf::{DecodeMessage, ErrorKind, Field, Fields, OwnedValues, ProtobufError, ReadValue};

use crate::error::{Error, Result};
use crate::files::{enough_memory, read};

/// A graph.
#[derive(Debug, Default)]
pub struct Graph {
    /// Its operations, each after those whose results it takes.
    pub nodes: Vec<Node>,
    /// Its weights in 32-bit floats, by name.
    pub weights: BTreeMap<String, Array>,
    /// Constants of 32-bit floats among its operations, by the name of their value.
    pub constants: BTreeMap<String, Array>,
}

/// An operation.
#[derive(Debug, Default)]
pub struct Node {
    /// What it does, by ONNX's name for it.
    pub operation: String,
    /// Names of the values that it takes.
    pub inputs: Vec<String>,
    /// Name of its first result.
    pub output: String,
}

/// Reads a graph, and the sha256 of its file.
///
/// # Errors
/// The file cannot be read, or is no whole ONNX file that holds its weights itself.
pub fn read_graph(path: &Path) -> Result<(Graph, String)> {
    let bytes = read(path)?;
    if let Some(what) = recognise(&bytes) {
        return Err(Error::invalid(path, what));
    }
    // The parser's copy of the weights, and ours.
    enough_memory(2 * bytes.len() as u64).map_err(|why| Error::invalid(path, why))?;
    let graph = parse(&bytes).map_err(|why| Error::invalid(path, why))?;
    Ok((graph, sha256(&bytes)))
}

fn parse(bytes: &[u8]) -> std::result::Result<Graph, String> {
    let model = decode(bytes).map_err(|why| match why.kind() {
        ErrorKind::Eof => "it is cut off or damaged; get the file again".to_owned(),
        // Ours: nothing else is read here than bytes.
        ErrorKind::IoError(why) => format!("{why}; pass a network's file, such as encoder.onnx"),
        other => format!("it cannot be read as ONNX; pass a network's file, such as encoder.onnx ({other})"),
    })?;
    let Some(parts) = model.graph else {
        return Err("it holds no graph of ONNX; pass a network's file, such as encoder.onnx".into());
    };
    let mut graph = Graph::default();
    for mut tensor in parts.weights {
        let name = tensor.name.take().unwrap_or_default();
        if let Some(array) = floats(&name, tensor)? {
            graph.weights.insert(name, array);
        }
    }
    for NodePart { node, tensor } in parts.nodes {
        match (&node.operation[..], tensor) {
            ("Constant", Some(tensor)) => {
                if let Some(array) = floats(&node.output, tensor)? {
                    graph.constants.insert(node.output, array);
                }
            }
            _ => graph.nodes.push(node),
        }
    }
    Ok(graph)
}

/// A tensor's values; `None` if they are no 32-bit floats.
fn floats(name: &str, tensor: TensorProto) -> std::result::Result<Option<Array>, String> {
    if tensor.data_type != Some(DataType::FLOAT) {
        return Ok(None);
    }
    if tensor.data_location == Some(DataLocation::EXTERNAL) {
        return Err(format!(
            "its tensor '{name}' lies in another file; save the model as one file"
        ));
    }
    let (values, whole) = match tensor.raw_data {
        Some(raw) => {
            let raw = raw.into_inner();
            (Floats::F32.to_f32(&raw), raw.len() % size_of::<f32>() == 0)
        }
        None => (tensor.float_data, true),
    };
    let sides = tensor.dims.iter().map(|&side| usize::try_from(side).ok());
    let shape: Option<Vec<usize>> = sides.collect();
    let count = |shape: &Vec<usize>| shape.iter().try_fold(1, |count: usize, &side| count.checked_mul(side));
    match shape {
        Some(shape) if whole && count(&shape) == Some(values.len()) => Ok(Some(Array::new(shape, values))),
        _ => Err(format!(
            "its tensor '{name}' holds {} values where its dimensions {:?} say otherwise; get the file again",
            values.len(),
            tensor.dims
        )),
    }
}

/// What the parser makes of bytes.
type Decoded<T> = std::result::Result<T, ProtobufError>;

fn decode(bytes: &[u8]) -> Decoded<ModelPart> {
    // The parser takes the end of a file for that of what it reads: each part must be there.
    each_field(Fields::new(&mut Bounded::new(bytes), None), |field| field.skip())?;
    ModelPart::decode(Bounded::new(bytes))
}

/// What is read of ONNX's messages. The parser's own types hold graphs within the operations of graphs, and it goes as
/// deep into them as a file says.
#[derive(Default)]
struct ModelPart {
    graph: Option<GraphPart>,
}

#[derive(Default)]
struct GraphPart {
    nodes: Vec<NodePart>,
    weights: Vec<TensorProto>,
}

#[derive(Default)]
struct NodePart {
    node: Node,
    /// The last one among its attributes.
    tensor: Option<TensorProto>,
}

#[derive(Default)]
struct AttributePart {
    tensor: Option<TensorProto>,
}

// The numbers are those of the fields in onnx.proto.

impl DecodeMessage for ModelPart {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(fields: Fields<R>) -> Decoded<Self> {
        let mut model = Self::default();
        each_field(fields, |field| {
            match field.number() {
                7 => model.graph = Some(GraphPart::decode_field(field)?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(model)
    }
}

impl DecodeMessage for GraphPart {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(fields: Fields<R>) -> Decoded<Self> {
        let mut graph = Self::default();
        each_field(fields, |field| {
            match field.number() {
                1 => graph.nodes.push(NodePart::decode_field(field)?),
                5 => graph.weights.push(TensorProto::decode_field(field)?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(graph)
    }
}

impl DecodeMessage for NodePart {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(fields: Fields<R>) -> Decoded<Self> {
        let Self { mut node, mut tensor } = Self::default();
        each_field(fields, |field| {
            match field.number() {
                1 => node.inputs.push(field.read_string()?),
                2 if node.output.is_empty() => node.output = field.read_string()?,
                4 => node.operation = field.read_string()?,
                5 => tensor = AttributePart::decode_field(field)?.tensor.or(tensor.take()),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(Self { node, tensor })
    }
}

impl DecodeMessage for AttributePart {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(fields: Fields<R>) -> Decoded<Self> {
        let mut attribute = Self::default();
        each_field(fields, |field| {
            match field.number() {
                5 => attribute.tensor = Some(TensorProto::decode_field(field)?),
                _ => field.skip()?,
            }
            Ok(())
        })?;
        Ok(attribute)
    }
}

/// Hands over each field of a message, to be read or skipped.
fn each_field<R: ReadValue<Types = OwnedValues>>(
    mut fields: Fields<R>,
    mut take: impl FnMut(&mut Field<'_, R>) -> Decoded<()>,
) -> Decoded<()> {
    while let Some(mut field) = fields.next()? {
        take(&mut field)?;
    }
    Ok(())
}

fn end() -> ProtobufError {
    ProtobufError::new(ErrorKind::Eof)
}

/// More numbers, lengths among them, than a graph of ten thousand operations is written with. A few bytes of a file
/// become hundreds in memory, so their number bounds it.
const MOST_NUMBERS: usize = 1 << 19;

/// What the parser reads from. Its own readers take the memory that a file's lengths ask for, skip backwards by lengths
/// beyond 63 bits, and wait for the end of a number that has none.
struct Bounded<'a> {
    rest: &'a [u8],
    whole: usize,
    numbers: usize,
}

impl<'a> Bounded<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            whole: bytes.len(),
            numbers: 0,
        }
    }

    fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(end)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(end)?;
        self.rest = rest;
        Ok(*taken)
    }
}

impl ReadValue for Bounded<'_> {
    type Types = OwnedValues;

    fn read_i32(&mut self) -> Decoded<i32> {
        self.take_array().map(i32::from_le_bytes)
    }

    fn read_i64(&mut self) -> Decoded<i64> {
        self.take_array().map(i64::from_le_bytes)
    }

    fn read_varint(&mut self) -> Decoded<u64> {
        self.numbers += 1;
        if self.numbers > MOST_NUMBERS {
            let many = std::io::Error::other("it has far more parts than MobileSAM");
            return Err(ProtobufError::new(ErrorKind::IoError(many)));
        }
        // A number's last byte has its high bit clear; the parser's own function takes the bytes, which are few then.
        let last = self.rest.iter().take(MAX_VARINT_LEN).position(|byte| *byte < 0x80);
        match last {
            Some(last) => Ok(read_varint(self.take(last + 1)?)?),
            None if self.rest.is_empty() => Err(end()),
            None => Err(ProtobufError::new(ErrorKind::InvalidVarint)),
        }
    }

    fn read_bytes(&mut self, count: usize) -> Decoded<Vec<u8>> {
        self.take(count).map(<[u8]>::to_vec)
    }

    fn read_string(&mut self, count: usize) -> Decoded<String> {
        let bytes = self.read_bytes(count)?;
        String::from_utf8(bytes).map_err(|_| ProtobufError::new(ErrorKind::InvalidUtf8))
    }

    fn skip(&mut self, count: usize) -> Decoded<()> {
        self.take(count).map(drop)
    }

    fn position(&self) -> u64 {
        (self.whole - self.rest.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rten_onnx::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};

    use super::*;

    fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        TensorProto {
            dims: dims.to_vec(),
            data_type: Some(DataType::FLOAT),
            raw_data: Some(RefCell::new(bytes)),
            name: Some(name.to_owned()),
            ..TensorProto::default()
        }
    }

    fn operation(name: &str, attribute: AttributeProto) -> NodeProto {
        NodeProto {
            op_type: Some(name.to_owned()),
            input: vec!["x".to_owned()],
            output: vec!["y".to_owned()],
            attribute: vec![attribute],
            ..NodeProto::default()
        }
    }

    fn bytes(node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
        let graph = GraphProto {
            node,
            initializer,
            ..GraphProto::default()
        };
        let model = ModelProto {
            ir_version: Some(8),
            graph: Some(graph),
            ..ModelProto::default()
        };
        model.write_buf().unwrap()
    }

    /// A file of one tensor of these dimensions, which holds two values.
    fn of_dimensions(dims: &[i64]) -> Vec<u8> {
        bytes(Vec::new(), vec![tensor("w", dims, &[1.0, 2.0])])
    }

    #[test]
    fn weights_and_constants_are_read() {
        let constant = AttributeProto {
            t: Some(tensor("", &[1], &[3.0])),
            ..AttributeProto::default()
        };
        let mut listed = tensor("listed", &[2], &[]);
        listed.raw_data = None;
        listed.float_data = vec![4.0, 5.0];
        let mut counter = tensor("counter", &[1], &[0.0]);
        counter.data_type = Some(DataType::INT32);
        let nodes = vec![
            operation("Constant", constant),
            operation("Relu", AttributeProto::default()),
        ];
        let weights = vec![tensor("w", &[2, 1], &[1.0, 2.0]), listed, counter];
        let graph = parse(&bytes(nodes, weights)).unwrap();
        assert_eq!(graph.weights["w"], Array::new([2, 1], vec![1.0, 2.0]));
        assert_eq!(graph.weights["listed"], Array::new([2], vec![4.0, 5.0]));
        assert_eq!(graph.weights.len(), 2);
        assert_eq!(graph.constants["y"], Array::new([1], vec![3.0]));
        assert_eq!((graph.nodes.len(), &graph.nodes[0].operation[..]), (1, "Relu"));
    }

    #[test]
    fn dimensions_that_cannot_be_are_refused() {
        for dims in [&[3][..], &[1 << 40, 1 << 40], &[-2], &[i64::MIN], &[1 << 62, 4, 0], &[]] {
            let said = parse(&of_dimensions(dims)).unwrap_err();
            assert!(said.contains("'w' holds 2 values"), "{said}");
        }
        let mut odd = tensor("w", &[1], &[]);
        odd.raw_data = Some(RefCell::new(vec![0; 5]));
        assert!(
            parse(&bytes(Vec::new(), vec![odd]))
                .unwrap_err()
                .contains("'w' holds 1 values")
        );
        let mut elsewhere = tensor("w", &[1], &[1.0]);
        elsewhere.data_location = Some(DataLocation::EXTERNAL);
        let said = parse(&bytes(Vec::new(), vec![elsewhere])).unwrap_err();
        assert!(said.contains("as one file"), "{said}");
    }

    #[test]
    fn cut_off_and_damaged_files_are_refused() {
        let whole = of_dimensions(&[2]);
        assert!(parse(&whole).is_ok());
        for length in 3..whole.len() {
            let said = parse(&whole[..length]).unwrap_err();
            assert!(said.contains("cut off or damaged"), "{length}: {said}");
        }
        for place in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[place] ^= 1 << bit;
                let _ = parse(&damaged);
            }
        }
        for (garbage, wanted) in [
            (&b""[..], "no graph"),
            (&[0xff; 64], "cannot be read as ONNX"),
            (&[0x07; 64], "cannot be read as ONNX"),
            // A graph of nearly as many bytes as numbers have, and one to be skipped that is as long.
            (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off or damaged"),
            (b"\x42\xfd\xff\xff\xff\xff\xff\xff\xff\xff\x01", "cut off or damaged"),
        ] {
            let said = parse(garbage).unwrap_err();
            assert!(said.contains(wanted), "{garbage:?}: {said}");
        }
    }

    /// Deeper than any stack, if they were followed.
    #[test]
    fn graphs_within_graphs_are_passed_over() {
        let field = |number: u8, content: Vec<u8>| {
            let mut bytes = vec![number << 3 | 2];
            let mut length = content.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend(content);
            bytes
        };
        let graphs = (0..5_000).fold(Vec::new(), |graph, _| field(1, field(5, field(6, graph))));
        assert_eq!(parse(&field(7, graphs)).unwrap().nodes.len(), 1);
        let types = (0..5_000).fold(Vec::new(), |kind, _| field(4, field(1, kind)));
        assert!(parse(&field(7, field(11, field(2, types)))).is_ok());
    }

    /// Two bytes each in the file, hundreds in memory.
    #[test]
    fn parts_beyond_all_measure_are_refused() {
        let nothing = operation("", AttributeProto::default());
        let many = NodeProto {
            attribute: vec![AttributeProto::default(); MOST_NUMBERS / 2],
            ..nothing
        };
        let said = parse(&bytes(vec![many], Vec::new())).unwrap_err();
        assert!(said.contains("far more parts"), "{said}");
    }
}
