//! The cost of JSON: ns per number read and written, ns per envelope.
//!
//! Throughput is given in elements, so criterion's `elem/s` is numbers per second; its inverse is ns per
//! number.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape};
use headgate_protocol::numbers::decode_into;
use headgate_protocol::{
    Envelope, EnvelopeScratch, OutputTensor, ResponseHead, TensorData, TypedSliceMut, binary, response,
};

const COUNT: usize = 4096;

/// A xorshift generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn list(mut each: impl FnMut(&mut Random) -> String) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let items: Vec<String> = (0..COUNT).map(|_| each(&mut random)).collect();
    format!("[{}]", items.join(",")).into_bytes()
}

fn read(c: &mut Criterion) {
    let shape = Shape::new(&[COUNT as i64]).expect("a flat shape");
    let mut group = c.benchmark_group("read");
    group.throughput(Throughput::Elements(COUNT as u64));
    let single = [
        ("f32_shortest_unit", list(|r| (r.unit() as f32).to_string())),
        ("f32_shortest_signed", list(|r| ((r.unit() * 20.0 - 10.0) as f32).to_string())),
        ("f32_three_decimals", list(|r| format!("{:.3}", r.unit() * 100.0))),
        ("f32_from_python_tolist", list(|r| f64::from(r.unit() as f32).to_string())),
        ("f32_small_whole", list(|r| format!("{}.0", r.next() % 17))),
    ];
    let mut out = vec![0f32; COUNT];
    for (name, data) in &single {
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| decode_into(black_box(data), &shape, TypedSliceMut::Fp32(&mut out), "X"));
        });
    }
    // The peer of the ratios: splitting at commas, and the standard parser.
    let text = std::str::from_utf8(&single[0].1).expect("digits");
    group.bench_function("f32_shortest_unit_by_std", |b| {
        b.iter(|| {
            for (slot, text) in out.iter_mut().zip(black_box(&text[1..text.len() - 1]).split(',')) {
                *slot = text.parse().expect("a number");
            }
        });
    });
    let data = list(|r| (r.unit() * 2.0 - 1.0).to_string());
    let mut out = vec![0f64; COUNT];
    group.bench_function("f64_shortest_signed", |b| {
        b.iter(|| decode_into(black_box(&data), &shape, TypedSliceMut::Fp64(&mut out), "X"));
    });
    let data = list(|r| (r.next() as u8).to_string());
    let mut out = vec![0u8; COUNT];
    group.bench_function("u8", |b| {
        b.iter(|| decode_into(black_box(&data), &shape, TypedSliceMut::Uint8(&mut out), "X"))
    });
    let data = list(|r| (r.next() as i64).to_string());
    let mut out = vec![0i64; COUNT];
    group.bench_function("i64", |b| {
        b.iter(|| decode_into(black_box(&data), &shape, TypedSliceMut::Int64(&mut out), "X"))
    });
    group.finish();
}

/// A whole request of 64 numbers, as the digits example sends it: envelope alone, envelope and numbers.
fn request(c: &mut Criterion) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let numbers: Vec<String> = (0..64).map(|_| format!("{}.0", random.next() % 17)).collect();
    let body = format!(
        r#"{{"id":"42","inputs":[{{"name":"X","shape":[1,64],"datatype":"FP32","data":[[{}]]}}]}}"#,
        numbers.join(",")
    );
    let mut scratch = EnvelopeScratch::default();
    let mut group = c.benchmark_group("request_of_64");
    group.bench_function("envelope", |b| {
        b.iter(|| {
            let parts = binary::split(black_box(body.as_bytes()), None).expect("no header");
            let envelope = Envelope::parse(parts, &mut scratch).expect("a good request");
            scratch.recycle(envelope);
        });
    });
    let mut out = [0f32; 64];
    group.bench_function("envelope_and_numbers", |b| {
        b.iter(|| {
            let parts = binary::split(black_box(body.as_bytes()), None).expect("no header");
            let envelope = Envelope::parse(parts, &mut scratch).expect("a good request");
            envelope.inputs[0].decode_into(TypedSliceMut::Fp32(&mut out)).expect("good numbers");
            scratch.recycle(envelope);
        });
    });
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let singles: Vec<f32> = (0..COUNT).map(|_| random.unit() as f32).collect();
    let doubles: Vec<f64> = (0..COUNT).map(|_| random.unit()).collect();
    let integers: Vec<i64> = (0..COUNT).map(|_| random.next() as i64 >> (random.next() % 64)).collect();
    let shape = Shape::new(&[COUNT as i64]).expect("a flat shape");
    let head = ResponseHead { id: Some("42"), model_name: "digits", model_version: "1", template: None };
    let mut out = Vec::new();
    let mut group = c.benchmark_group("write");
    group.throughput(Throughput::Elements(COUNT as u64));
    for (name, datatype, data) in [
        ("f32", DataType::Fp32, TensorData::Fp32(&singles)),
        ("f64", DataType::Fp64, TensorData::Fp64(&doubles)),
        ("i64", DataType::Int64, TensorData::Int64(&integers)),
    ] {
        let outputs = [OutputTensor {
            name: "Y",
            datatype,
            shape: shape.view(),
            data,
            binary: false,
            non_finite: NonFinite::Error,
            template: None,
        }];
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                response::write(&mut out, &head, black_box(&outputs)).expect("finite numbers")
            });
        });
    }
    group.finish();
    let shape = Shape::new(&[1, 10]).expect("a small shape");
    let data = TensorData::Fp32(&singles[..10]);
    let outputs = [OutputTensor {
        name: "probabilities",
        datatype: DataType::Fp32,
        shape: shape.view(),
        data,
        binary: false,
        non_finite: NonFinite::Error,
        template: None,
    }];
    c.bench_function("write_answer_of_10", |b| {
        b.iter(|| {
            out.clear();
            response::write(&mut out, &head, black_box(&outputs)).expect("finite numbers")
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .measurement_time(std::time::Duration::from_secs(2))
        .warm_up_time(std::time::Duration::from_millis(500))
        .without_plots();
    targets = read, request, write
}
criterion_main!(benches);
