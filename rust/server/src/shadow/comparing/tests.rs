//! Pairings and comparisons over tensors in memory, beside a plain computation of the same.

use std::collections::BTreeMap;

use headgate_core::comparison::{Comparison, RowLabel, Tolerance};
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, ShapeRef, Signature, TensorSpec};
use headgate_engine::runtime::{Elements, TensorView};
use serde_json::json;

use super::*;
use crate::shadow::pairing::OutputRules;
use crate::shadow::tally::Tally;
use crate::shadow::tally::slices::SliceValues;

/// Outputs in memory: type, dimensions, bytes or strings.
struct Outputs(Vec<(DataType, Vec<i64>, Data)>);

enum Data {
    Bytes(Vec<u8>),
    Strings(Vec<&'static str>),
}

impl OutputTensors for Outputs {
    fn output(&self, index: usize) -> Result<TensorView<'_>> {
        let missing = || Error::new(Code::Internal, "no such output");
        let (datatype, dims, data) = self.0.get(index).ok_or_else(missing)?;
        let data = match data {
            Data::Bytes(bytes) => Elements::Bytes(bytes),
            Data::Strings(strings) => {
                let mut offsets = Vec::new();
                let mut bytes = Vec::new();
                for text in strings {
                    offsets.push(bytes.len());
                    bytes.extend_from_slice(text.as_bytes());
                }
                Elements::Strings { bytes, offsets }
            }
        };
        Ok(TensorView { datatype: *datatype, shape: ShapeRef::new(dims)?, data })
    }
}

fn floats(dims: &[i64], values: &[f32]) -> (DataType, Vec<i64>, Data) {
    (
        DataType::Fp32,
        dims.to_vec(),
        Data::Bytes(values.iter().flat_map(|value| value.to_ne_bytes()).collect()),
    )
}

fn longs(values: &[i64]) -> (DataType, Vec<i64>, Data) {
    let bytes = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    (DataType::Int64, vec![values.len() as i64], Data::Bytes(bytes))
}

fn strings(values: &[&'static str]) -> (DataType, Vec<i64>, Data) {
    (DataType::Bytes, vec![values.len() as i64], Data::Strings(values.to_vec()))
}

fn spec(name: &str, datatype: DataType) -> TensorSpec {
    let json = json!({"name": name, "datatype": datatype.as_str(), "shape": [-1], "any_rank": true});
    serde_json::from_value(json).unwrap()
}

fn signature(inputs: &[(&str, DataType)], outputs: &[(&str, DataType)]) -> Signature {
    let specs = |all: &[(&str, DataType)]| all.iter().map(|(name, datatype)| spec(name, *datatype)).collect();
    Signature { inputs: specs(inputs), outputs: specs(outputs), ..Signature::default() }
}

const X: (&str, DataType) = ("x", DataType::Fp32);

fn pairing_of(
    asked: &Signature,
    other: &Signature,
    compare: &[(&str, Comparison)],
) -> std::result::Result<Pairing, String> {
    let compare = compare.iter().map(|(name, how)| ((*name).to_owned(), *how)).collect();
    Pairing::new(asked, other, OutputRules { compare: &compare, labels: &BTreeMap::new() })
}

/// The pairing of two versions with these outputs.
fn pairing(outputs: &[(&str, DataType)], compare: &[(&str, Comparison)]) -> Pairing {
    let signature = signature(&[X], outputs);
    pairing_of(&signature, &signature, compare).unwrap()
}

#[test]
fn outputs_belong_together_by_name_and_are_compared_as_written_or_else_by_their_type() {
    let asked =
        signature(&[X], &[("scores", DataType::Fp32), ("label", DataType::Int64), ("text", DataType::Bytes)]);
    let other =
        signature(&[X], &[("text", DataType::Bytes), ("more", DataType::Fp32), ("scores", DataType::Fp64)]);
    let pairing = pairing_of(&asked, &other, &[]).unwrap();
    let found: Vec<_> =
        pairing.outputs.iter().map(|one| (one.name.as_str(), one.asked, one.other, one.comparison)).collect();
    let within = Comparison::Within(Tolerance::Relative(0.001));
    assert_eq!(found, [("scores", 0, 2, within), ("text", 2, 0, Comparison::Exact)]);
    let own = pairing.of_asked_alone(&asked);
    assert_eq!(own.outputs.iter().map(|one| (one.asked, one.other)).collect::<Vec<_>>(), [(0, 0), (2, 2)]);
}

#[test]
fn what_does_not_belong_together_is_named() {
    let asked = signature(&[X], &[("y", DataType::Fp32)]);
    let mismatch =
        |other: &Signature, compare: &[(&str, Comparison)]| pairing_of(&asked, other, compare).unwrap_err();
    let y = ("y", DataType::Fp32);
    assert_eq!(
        mismatch(&signature(&[X, ("z", DataType::Fp32)], &[y]), &[]),
        "it needs the input \"z\", which the champion does not have"
    );
    assert_eq!(
        mismatch(&signature(&[("x", DataType::Int64)], &[y]), &[]),
        "input \"x\" is INT64 here and FP32 in the champion"
    );
    assert_eq!(
        mismatch(&signature(&[X], &[("y", DataType::Bytes)]), &[]),
        "output \"y\" is BYTES here and FP32 in the champion"
    );
    assert_eq!(
        mismatch(&signature(&[X], &[y]), &[("z", Comparison::Label)]),
        "compare names the output \"z\", which the champion does not have"
    );
    assert_eq!(
        mismatch(&signature(&[X], &[("z", DataType::Fp32)]), &[]),
        "it has no output of the champion's, so that nothing can be compared"
    );
    let text = signature(&[X], &[("text", DataType::Bytes)]);
    assert_eq!(
        pairing_of(&text, &text, &[("text", Comparison::Label)]).unwrap_err(),
        "output \"text\" holds strings, which are compared with exact alone"
    );
    // An input that the other version does not need is left out.
    assert!(pairing_of(&signature(&[X, ("z", DataType::Fp32)], &[y]), &signature(&[X], &[y]), &[]).is_ok());
}

#[test]
fn a_row_differs_if_it_differs_in_one_output() {
    let pairing =
        pairing(&[("scores", DataType::Fp32), ("label", DataType::Int64)], &[("scores", Comparison::Label)]);
    let asked = Outputs(vec![floats(&[3, 2], &[0.9, 0.1, 0.2, 0.8, 0.5, 0.6]), longs(&[0, 1, 1])]);
    let other = Outputs(vec![floats(&[3, 2], &[0.7, 0.3, 0.8, 0.2, f32::NAN, 0.6]), longs(&[5, 0, 1])]);
    let found = compare(&pairing, &asked, &other).unwrap();
    assert_eq!((found.rows, found.differing_rows, found.first_differing), (3, 3, Some(0)));
    assert_eq!((found.asked_has_nan, found.other_has_nan), (false, true));
    let [scores, label] = &found.outputs[..] else { panic!("two outputs") };
    assert_eq!((scores.differing_rows, label.differing_rows), (2, 2));
    let class = RowLabel::Class;
    let moves = BTreeMap::from([((class(1), class(0)), 1), ((class(1), RowLabel::NotANumber), 1)]);
    assert_eq!(scores.moves, moves);
    assert_eq!(scores.asked_labels, BTreeMap::from([(class(0), 1), (class(1), 2)]));
    assert!(label.moves.is_empty() && label.asked_labels.is_empty());
}

#[test]
fn large_integers_strings_and_missing_rows_are_compared_as_they_are() {
    let big = 1_i64 << 53;
    let pairing = pairing(&[("n", DataType::Int64), ("text", DataType::Bytes)], &[]);
    let found = |asked: Outputs, other: Outputs| {
        let found = compare(&pairing, &asked, &other).unwrap();
        (found.rows, found.differing_rows, found.first_differing)
    };
    let asked = || Outputs(vec![longs(&[big, 3]), strings(&["a", ""])]);
    assert_eq!(found(asked(), asked()), (2, 0, None));
    assert_eq!(found(asked(), Outputs(vec![longs(&[big + 1, 3]), strings(&["a", ""])])), (2, 1, Some(0)));
    assert_eq!(found(asked(), Outputs(vec![longs(&[big, 3]), strings(&["", "a"])])), (2, 2, Some(0)));
    assert_eq!(found(asked(), Outputs(vec![longs(&[big]), strings(&["a"])])), (2, 1, Some(1)));
    assert_eq!(found(asked(), Outputs(vec![longs(&[big, 3]), strings(&["a", "", "c"])])), (3, 1, Some(2)));
}

/// A small generator, so that the cases are the same each time (splitmix64).
fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[test]
fn a_tally_has_the_counts_of_a_plain_computation() {
    let pairing = pairing(&[("scores", DataType::Fp32)], &[("scores", Comparison::Label)]);
    let mut tally = Tally::new(&pairing.outputs, 1);
    let (mut state, mut pairs, mut differing, mut differing_rows, mut moved) = (7, 0, 0, 0, 0);
    let mut by_slice = BTreeMap::<String, (u64, u64)>::new();
    for _ in 0..2_000 {
        let rows = 1 + draw(&mut state) as usize % 4;
        let mut scores = || (0..rows * 2).map(|_| (draw(&mut state) % 3) as f32).collect::<Vec<f32>>();
        let (ours, theirs) = (scores(), scores());
        let slice = format!("s{}", draw(&mut state) % 3);
        let label = |values: &[f32], row: usize| u32::from(values[2 * row + 1] > values[2 * row]);
        let wrong = (0..rows).filter(|&row| label(&ours, row) != label(&theirs, row)).count() as u64;
        pairs += 1;
        differing += u64::from(wrong > 0);
        differing_rows += wrong;
        moved += (0..rows).filter(|&row| label(&ours, row) == 0 && label(&theirs, row) == 1).count() as u64;
        let counts = by_slice.entry(slice.clone()).or_default();
        *counts = (counts.0 + 1, counts.1 + u64::from(wrong > 0));
        let dims = [rows as i64, 2];
        let (asked, other) = (Outputs(vec![floats(&dims, &ours)]), Outputs(vec![floats(&dims, &theirs)]));
        let slices: SliceValues = Box::new([Some(slice.into())]);
        tally.add_pair(&compare(&pairing, &asked, &other).unwrap(), &slices, 1_000);
    }
    assert_eq!((tally.compared.pairs, tally.compared.differing), (pairs, differing));
    assert_eq!(tally.compared.differing_rows, differing_rows);
    let direction = &tally.outputs[0].direction;
    assert_eq!(direction.both_ways(), Some((moved, differing_rows - moved)));
    let found: BTreeMap<String, (u64, u64)> = tally.slices.fields[0]
        .values
        .iter()
        .map(|(value, counts)| (value.as_deref().unwrap().to_owned(), (counts.pairs, counts.differing)))
        .collect();
    assert_eq!(found, by_slice);
}

#[test]
fn the_champion_is_run_again_on_a_tenth_of_the_pairs_and_on_500_at_least() {
    let pairing = pairing(&[("n", DataType::Int64)], &[]);
    let mut tally = Tally::new(&pairing.outputs, 0);
    let same = compare(&pairing, &Outputs(vec![longs(&[1])]), &Outputs(vec![longs(&[1])])).unwrap();
    let mut floor_after = BTreeMap::new();
    for pair in 1..=10_000_u64 {
        tally.add_pair(&same, &SliceValues::default(), 1_000);
        if tally.wants_floor() {
            // One in four finds the champion out of memory, or fails: it is not tried again and again.
            match pair % 4 {
                0 => tally.floor.skipped += 1,
                1 => tally.floor.errors += 1,
                _ => tally.floor.add(false),
            }
        }
        let tried = tally.floor.pairs + tally.floor.skipped + tally.floor.errors;
        floor_after.insert(pair, tried);
    }
    let tried = [400, 500, 4_000, 5_000, 6_000, 10_000].map(|pairs| floor_after[&pairs]);
    assert_eq!(tried, [400, 500, 500, 500, 600, 1_000]);
}
