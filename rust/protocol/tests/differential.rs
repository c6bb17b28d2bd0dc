//! Compares the number scanner with the standard parser: more than a million numbers, in every form that a client may write.
//!
//! The standard library's `str::parse` rounds correctly. serde_json is compared too, for what is a number.

use headgate_core::tensor::Shape;
use headgate_protocol::TypedSliceMut;
use headgate_protocol::numbers::decode_into;

/// A xorshift generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn digits(&mut self, n: u64) -> String {
        (0..n).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }

    /// A number that is spread over all exponents, or near the usual ones.
    fn double(&mut self) -> f64 {
        loop {
            let bits = match self.below(4) {
                0 => self.next(),
                1 => f64::from(f32::from_bits(self.next() as u32)).to_bits(),
                2 => (self.next() as i64 as f64 / (1u64 << 40) as f64).to_bits(),
                _ => (self.next() & 0x800f_ffff_ffff_ffff) | (self.below(64) + 991) << 52,
            };
            let value = f64::from_bits(bits);
            if value.is_finite() {
                return value;
            }
        }
    }

    /// A number in one of the usual forms. It is always valid JSON.
    fn text(&mut self) -> String {
        let value = self.double();
        let single = value as f32;
        match self.below(12) {
            0 => format!("{value:e}"),
            1 => format!("{value:.16e}"),
            2 => format!("{value:E}").replace('E', "E+").replace("+-", "-"),
            3 if single.is_finite() => format!("{single:e}"),
            4 if single.abs() < 1e20 => format!("{single}"),
            5 if value.abs() < 1e15 => format!("{value:.6}"),
            6 if value.abs() > 1e-10 && value.abs() < 1e20 => format!("{value}"),
            7 => {
                let (whole, fraction) = (self.below(9) + 1, self.below(30) + 1);
                format!("-{}{}.{}", self.below(9) + 1, self.digits(whole), self.digits(fraction))
            }
            8 => {
                let (zeros, fraction) = (self.below(25) as usize, self.below(20) + 1);
                format!("0.{}{}", "0".repeat(zeros), self.digits(fraction))
            }
            9 => {
                let (digits, exponent) = (self.below(25), self.below(90) as i64 - 45);
                format!("{}{}e{exponent}", self.below(9) + 1, self.digits(digits))
            }
            10 => halfway(self),
            _ => format!("{}", self.next() as i64),
        }
    }
}

/// A number exactly between two singles, or a hair beside it.
fn halfway(random: &mut Random) -> String {
    let exponent = random.below(40) + 1003;
    let mantissa = (random.next() & 0x000f_ffff_e000_0000) | 0x1000_0000;
    let middle = f64::from_bits(exponent << 52 | mantissa);
    let exact = format!("{middle:.60}");
    let exact = exact.trim_end_matches('0');
    match random.below(3) {
        0 => exact.to_owned(),
        1 => format!("{exact}0001"),
        _ => format!("{middle:.17}"),
    }
}

fn list(texts: &[String]) -> Vec<u8> {
    format!("[{}]", texts.join(",")).into_bytes()
}

const BATCH: usize = 1000;

#[test]
fn floats_equal_the_standard_parser_on_over_a_million_values() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut singles = 0;
    for _ in 0..800 {
        let texts: Vec<String> = (0..BATCH).map(|_| random.text()).collect();
        let want: Vec<f64> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let shape = Shape::new(&[BATCH as i64]).unwrap();
        let mut out = vec![0f64; BATCH];
        decode_into(&list(&texts), &shape, TypedSliceMut::Fp64(&mut out), "X").unwrap();
        for ((text, want), have) in texts.iter().zip(&want).zip(&out) {
            assert_eq!(want.to_bits(), have.to_bits(), "{text}");
        }
        let fits: Vec<String> =
            texts.into_iter().filter(|text| text.parse::<f32>().unwrap().is_finite()).collect();
        let shape = Shape::new(&[fits.len() as i64]).unwrap();
        let mut out = vec![0f32; fits.len()];
        decode_into(&list(&fits), &shape, TypedSliceMut::Fp32(&mut out), "X").unwrap();
        for (text, have) in fits.iter().zip(&out) {
            assert_eq!(text.parse::<f32>().unwrap().to_bits(), have.to_bits(), "{text}");
        }
        singles += fits.len();
    }
    assert!(singles > 500_000, "{singles}");
}

#[test]
fn every_power_of_ten_and_boundary_agrees() {
    let mut texts = Vec::new();
    for exponent in -345..=308 {
        for significand in
            ["1", "9007199254740991", "9007199254740993", "1797693134862315", "4.9406564584124654"]
        {
            texts.push(format!("{significand}e{exponent}"));
        }
    }
    for bits in [0, 1, 2, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_ffff] {
        texts.push(format!("{:e}", f64::from_bits(bits)));
        texts.push(format!("{}", f64::from_bits(bits)));
    }
    for bits in [0, 1, 2, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff] {
        texts.push(format!("{}", f32::from_bits(bits)));
        texts.push(format!("{}", f64::from(f32::from_bits(bits))));
    }
    let one = Shape::new(&[1]).unwrap();
    for text in texts {
        let data = format!("[{text}]").into_bytes();
        let want: f64 = text.parse().unwrap();
        let mut out = [0f64];
        let have = decode_into(&data, &one, TypedSliceMut::Fp64(&mut out), "X");
        assert_eq!(have.is_ok(), want.is_finite(), "{text}");
        if want.is_finite() {
            assert_eq!(out[0].to_bits(), want.to_bits(), "{text}");
        }
        let want: f32 = text.parse().unwrap();
        let mut out = [0f32];
        let have = decode_into(&data, &one, TypedSliceMut::Fp32(&mut out), "X");
        assert_eq!(have.is_ok(), want.is_finite(), "{text}");
        if want.is_finite() {
            assert_eq!(out[0].to_bits(), want.to_bits(), "{text}");
        }
    }
}

/// All limits of an integer type and random values of every length, with those just outside refused.
macro_rules! integers {
    ($($name:ident $variant:ident $t:ty;)*) => {$(
        #[test]
        fn $name() {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let one = Shape::new(&[1]).unwrap();
            for round in 0..60_000u64 {
                let value = match round {
                    0..600 => i128::from(<$t>::MAX) - 300 + i128::from(round),
                    600..1200 => i128::from(<$t>::MIN) - 300 + i128::from(round - 600),
                    _ => i128::from(random.next() as i64 >> random.below(64)) * 2 + i128::from(random.below(2)),
                };
                let mut out = [0];
                let have = decode_into(format!("[{value}]").as_bytes(), &one, TypedSliceMut::$variant(&mut out), "X");
                match <$t>::try_from(value) {
                    Ok(value) => assert!(have.is_ok() && out[0] == value, "{value}: {have:?} {out:?}"),
                    Err(_) => {
                        let error = have.unwrap_err();
                        assert!(error.message.contains(&format!("is {value}, outside")), "{error}");
                    }
                }
            }
        }
    )*};
}

integers! {
    uint8_is_exact Uint8 u8;
    uint16_is_exact Uint16 u16;
    uint32_is_exact Uint32 u32;
    uint64_is_exact Uint64 u64;
    int8_is_exact Int8 i8;
    int16_is_exact Int16 i16;
    int32_is_exact Int32 i32;
    int64_is_exact Int64 i64;
}

#[test]
fn a_text_is_a_number_here_exactly_where_serde_json_says_so() {
    let mut random = Random(0x1234_5678_9abc_def1);
    let alphabet = b"0123456789012345-+.eE 0";
    let one = Shape::new(&[1]).unwrap();
    let mut good = 0;
    for _ in 0..200_000 {
        let length = random.below(7) + 1;
        let text: String =
            (0..length).map(|_| char::from(alphabet[random.below(alphabet.len() as u64) as usize])).collect();
        let data = format!("[{text}]").into_bytes();
        let mut out = [0f64];
        let ours = decode_into(&data, &one, TypedSliceMut::Fp64(&mut out), "X");
        match serde_json::from_slice::<[f64; 1]>(&data) {
            Ok([want]) => {
                assert!(ours.is_ok(), "{text}: {ours:?}");
                assert_eq!(want.to_bits(), out[0].to_bits(), "{text}");
                good += 1;
            }
            Err(_) => assert!(ours.is_err(), "{text} was taken as {out:?}"),
        }
    }
    assert!(good > 10_000, "{good}");
}
