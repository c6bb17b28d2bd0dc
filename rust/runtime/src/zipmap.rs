//! Rewrites models that end in ZipMap, which makes a map of classes to probabilities for each row. Converters of classifiers add
//! it by default. In the rewritten model the output is the tensor of probabilities, and the classes are its labels.
//!
//! This works on the bytes of the model. Not here: when a model is rewritten (`session`). Next: `zipmap/wire`.

mod wire;

use std::collections::{HashMap, HashSet};

use wire::{WireField, fields, push_bytes, read_fields, text};

/// A model whose outputs are tensors in place of maps.
pub(crate) struct RewrittenModel {
    /// The model.
    pub(crate) model: Vec<u8>,
    /// The names of the classes by the name of the output.
    pub(crate) labels: HashMap<String, Vec<String>>,
}

/// Fields of ONNX's messages, as `onnx.proto` numbers them.
mod number {
    pub(super) const MODEL_GRAPH: u32 = 7;
    pub(super) const MODEL_OPSET: u32 = 8;
    pub(super) const GRAPH_NODE: u32 = 1;
    pub(super) const GRAPH_OUTPUT: u32 = 12;
    pub(super) const GRAPH_VALUE: u32 = 13;
    pub(super) const NODE_INPUT: u32 = 1;
    pub(super) const NODE_OUTPUT: u32 = 2;
    pub(super) const NODE_NAME: u32 = 3;
    pub(super) const NODE_OPERATOR: u32 = 4;
    pub(super) const NODE_ATTRIBUTE: u32 = 5;
    pub(super) const NODE_DOMAIN: u32 = 7;
    pub(super) const ATTRIBUTE_INTEGERS: u32 = 8;
    pub(super) const ATTRIBUTE_STRINGS: u32 = 9;
    /// A value's or an operator set's name.
    pub(super) const NAME: u32 = 1;
    pub(super) const VALUE_TYPE: u32 = 2;
}

/// An Identity of operator set 1 or any later one does the same.
const OPSET: &[u8] = &[0x0a, 0, 0x10, 13];
/// `TypeProto { tensor_type { elem_type: FLOAT } }`: the input of a ZipMap. The runtime infers its shape.
const FLOATS: &[u8] = &[0x0a, 2, 0x08, 1];

/// The model without the ZipMaps whose maps are outputs. `None` if there are none, or the bytes are no model.
pub(crate) fn remove_zipmaps(model: &[u8]) -> Option<RewrittenModel> {
    let parts = read_fields(model)?;
    let mut graphs = parts.iter().filter(|field| field.number == number::MODEL_GRAPH);
    let (graph, None) = (graphs.next()?.bytes?, graphs.next()) else { return None };
    let graph = Graph::read(graph)?;
    let maps = graph.zipmap_outputs();
    if maps.nodes_of_maps.is_empty() {
        return None;
    }
    let mut written = Vec::with_capacity(model.len());
    for part in &parts {
        match part.number {
            number::MODEL_GRAPH => {
                push_bytes(&mut written, number::MODEL_GRAPH, &graph.without_zipmaps(&maps))
            }
            _ => written.extend_from_slice(part.raw),
        }
    }
    let has_opset = parts.iter().any(|part| part.number == number::MODEL_OPSET && is_default_domain(part));
    if !has_opset {
        push_bytes(&mut written, number::MODEL_OPSET, OPSET);
    }
    Some(RewrittenModel { model: written, labels: maps.labels })
}

fn is_default_domain(opset: &WireField<'_>) -> bool {
    let domain = opset.bytes.and_then(|bytes| text(bytes, number::NAME));
    matches!(domain, None | Some("" | "ai.onnx"))
}

struct Graph<'a> {
    parts: Vec<WireField<'a>>,
    /// By their index among the parts.
    nodes: HashMap<usize, Node<'a>>,
}

struct Node<'a> {
    parts: Vec<WireField<'a>>,
    operator: &'a str,
    domain: &'a str,
}

/// The outputs of a graph that are maps of ZipMaps.
struct ZipMapOutputs<'a> {
    /// The nodes of the ZipMaps, by their index among the parts.
    nodes_of_maps: HashSet<usize>,
    /// The names of the maps.
    values: HashSet<&'a str>,
    labels: HashMap<String, Vec<String>>,
}

impl ZipMapOutputs<'_> {
    /// The name of a declared value, if it is a map.
    fn name_of<'p>(&self, part: &WireField<'p>) -> Option<&'p str> {
        let name = text(part.bytes?, number::NAME)?;
        self.values.contains(name).then_some(name)
    }
}

impl<'a> Graph<'a> {
    fn read(graph: &'a [u8]) -> Option<Graph<'a>> {
        let parts = read_fields(graph)?;
        let nodes = parts.iter().enumerate().filter(|(_, part)| part.number == number::GRAPH_NODE);
        let nodes = nodes.map(|(at, part)| Some((at, Node::read(part.bytes?)?)));
        Some(Graph { nodes: nodes.collect::<Option<_>>()?, parts })
    }

    /// The outputs that a ZipMap makes. A map that another node reads stays a map.
    fn zipmap_outputs(&self) -> ZipMapOutputs<'a> {
        let mut maps =
            ZipMapOutputs { nodes_of_maps: HashSet::new(), values: HashSet::new(), labels: HashMap::new() };
        let outputs = self.parts.iter().filter(|part| part.number == number::GRAPH_OUTPUT);
        for output in outputs.filter_map(|part| text(part.bytes?, number::NAME)) {
            let maker = self.nodes.iter().find(|(_, node)| node.outputs().any(|made| made == output));
            let Some((&at, node)) = maker.filter(|(_, node)| node.is_zipmap()) else { continue };
            if !self.nodes.values().any(|node| node.inputs().any(|read| read == output)) {
                maps.labels.insert(output.to_owned(), node.labels());
                maps.values.insert(output);
                maps.nodes_of_maps.insert(at);
            }
        }
        maps
    }

    fn without_zipmaps(&self, maps: &ZipMapOutputs<'_>) -> Vec<u8> {
        let mut graph = Vec::new();
        for (at, part) in self.parts.iter().enumerate() {
            match (part.number, maps.name_of(part)) {
                (number::GRAPH_NODE, _) if maps.nodes_of_maps.contains(&at) => {
                    push_bytes(&mut graph, number::GRAPH_NODE, &self.nodes[&at].as_identity());
                }
                // The declaration of the value as a map is left out.
                (number::GRAPH_VALUE, Some(_)) => {}
                (number::GRAPH_OUTPUT, Some(name)) => {
                    let mut output = Vec::new();
                    push_bytes(&mut output, number::NAME, name.as_bytes());
                    push_bytes(&mut output, number::VALUE_TYPE, FLOATS);
                    push_bytes(&mut graph, number::GRAPH_OUTPUT, &output);
                }
                _ => graph.extend_from_slice(part.raw),
            }
        }
        graph
    }
}

impl<'a> Node<'a> {
    fn read(node: &'a [u8]) -> Option<Node<'a>> {
        let operator = text(node, number::NODE_OPERATOR).unwrap_or_default();
        let domain = text(node, number::NODE_DOMAIN).unwrap_or_default();
        Some(Node { parts: read_fields(node)?, operator, domain })
    }

    fn is_zipmap(&self) -> bool {
        (self.operator, self.domain) == ("ZipMap", "ai.onnx.ml")
    }

    fn texts(&self, number: u32) -> impl Iterator<Item = &'a str> {
        let found = self.parts.iter().filter(move |part| part.number == number);
        found.filter_map(|part| str::from_utf8(part.bytes?).ok())
    }

    fn inputs(&self) -> impl Iterator<Item = &'a str> {
        self.texts(number::NODE_INPUT)
    }

    fn outputs(&self) -> impl Iterator<Item = &'a str> {
        self.texts(number::NODE_OUTPUT)
    }

    /// The classes of a ZipMap: strings, or whole numbers.
    fn labels(&self) -> Vec<String> {
        let attributes = self.parts.iter().filter(|part| part.number == number::NODE_ATTRIBUTE);
        let fields = attributes.filter_map(|part| part.bytes).flat_map(|bytes| fields(bytes).flatten());
        let mut labels = Vec::new();
        for field in fields {
            match (field.number, field.bytes) {
                (number::ATTRIBUTE_STRINGS, Some(class)) => {
                    labels.push(String::from_utf8_lossy(class).into_owned())
                }
                (number::ATTRIBUTE_INTEGERS, None) => labels.push((field.varint as i64).to_string()),
                (number::ATTRIBUTE_INTEGERS, Some(packed)) => {
                    labels.extend(wire::varints(packed).map(|class| (class as i64).to_string()));
                }
                _ => {}
            }
        }
        labels
    }

    fn as_identity(&self) -> Vec<u8> {
        let unchanged = [number::NODE_INPUT, number::NODE_OUTPUT, number::NODE_NAME];
        let mut node = Vec::new();
        for part in self.parts.iter().filter(|part| unchanged.contains(&part.number)) {
            node.extend_from_slice(part.raw);
        }
        push_bytes(&mut node, number::NODE_OPERATOR, b"Identity");
        node
    }
}
