//! Decodes the instructions that are stepped over: `div` and `idiv` of x86-64.
//!
//! Instructions with a `lock` or `rep` prefix and the EVEX and REX2 forms of APX are not decoded: the previous handler gets them.

/// The longest instruction there is, in bytes.
pub(super) const LONGEST: usize = 15;

/// The width of a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// AX by 8 bits; AL is the quotient, AH the remainder.
    Byte,
    /// DX:AX by 16 bits.
    Word,
    /// EDX:EAX by 32 bits.
    Double,
    /// RDX:RAX by 64 bits.
    Quad,
}

/// A decoded division.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) width: Width,
    /// The length of the whole instruction, in bytes.
    pub(super) length: usize,
}

impl Division {
    /// The division at the start of `code`, if there is one and it is complete.
    pub(super) fn decode(code: &[u8]) -> Option<Division> {
        let (mut at, mut word, mut wide) = (0, false, false);
        // The operand's size, the address's size and the segments, in any order.
        while let prefix @ (0x66 | 0x67 | 0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65) = *code.get(at)? {
            word |= prefix == 0x66;
            at += 1;
        }
        // REX has a meaning only right in front of the opcode.
        if let rex @ 0x40..=0x4F = *code.get(at)? {
            wide = rex & 0x08 != 0;
            at += 1;
        }
        let width = match (*code.get(at)?, wide, word) {
            (0xF6, _, _) => Width::Byte,
            (0xF7, true, _) => Width::Quad,
            (0xF7, false, true) => Width::Word,
            (0xF7, false, false) => Width::Double,
            _ => return None,
        };
        let operand = code.get(at + 1..)?;
        // The middle field chooses among the opcode's operations: 6 is `div`, 7 `idiv`.
        if (operand.first()? >> 3) & 7 < 6 {
            return None;
        }
        let length = at + 1 + operand_length(operand)?;
        (length <= LONGEST && length <= code.len()).then_some(Division { width, length })
    }
}

/// The length of ModRM, SIB and displacement, in bytes.
fn operand_length(operand: &[u8]) -> Option<usize> {
    let (mode, base) = (operand.first()? >> 6, operand.first()? & 7);
    if mode == 3 {
        return Some(1);
    }
    let has_sib = base == 4;
    // A base of 5 in mode 0 is no register, but a 32-bit address: relative to RIP, or with an index.
    let base = if has_sib { operand.get(1)? & 7 } else { base };
    let displacement = match mode {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    Some(1 + usize::from(has_sib) + displacement)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form of an operand with the bytes behind the ModRM byte, from the manual's table and not from the code above.
    fn operands() -> Vec<(u8, Vec<u8>)> {
        let mut all = Vec::new();
        for register in 0..8u8 {
            all.push((0xC0 | register, vec![]));
            for (mode, bytes) in [(0x00u8, 0usize), (0x40, 1), (0x80, 4)] {
                match (register, mode) {
                    (4, _) => {
                        for sib in 0..=255u8 {
                            let alone = mode == 0 && sib & 7 == 5;
                            let mut rest = vec![sib];
                            rest.resize(1 + if alone { 4 } else { bytes }, 0x11);
                            all.push((mode | 4, rest));
                        }
                    }
                    (5, 0) => all.push((5, vec![0x11; 4])),
                    _ => all.push((mode | register, vec![0x11; bytes])),
                }
            }
        }
        all
    }

    const PREFIXES: [&[u8]; 7] =
        [&[], &[0x66], &[0x67], &[0x2E, 0x66], &[0x64, 0x67, 0x66], &[0x66, 0x66], &[0x65]];

    #[test]
    fn every_form_has_its_length_and_width() {
        let mut forms = 0;
        for prefix in PREFIXES {
            for rex in std::iter::once(None).chain((0x40..=0x4Fu8).map(Some)) {
                for (opcode, operation) in [(0xF6, 6), (0xF6, 7), (0xF7, 6), (0xF7, 7u8)] {
                    for (modrm, rest) in operands() {
                        let mut code = prefix.to_vec();
                        code.extend(rex);
                        code.extend([opcode, modrm | operation << 3]);
                        code.extend(&rest);
                        let length = code.len();
                        let width = if opcode == 0xF6 {
                            Width::Byte
                        } else if rex.is_some_and(|rex| rex & 8 != 0) {
                            Width::Quad
                        } else if prefix.contains(&0x66) {
                            Width::Word
                        } else {
                            Width::Double
                        };
                        assert_eq!(Division::decode(&code[..length - 1]), None, "cut off: {code:02X?}");
                        code.extend([0x90; 4]);
                        assert_eq!(Division::decode(&code), Some(Division { width, length }), "{code:02X?}");
                        forms += 1;
                    }
                }
            }
        }
        assert!(forms > 300_000, "{forms}");
    }

    #[test]
    fn nothing_else_is_decoded() {
        for (opcode, modrm) in (0..=0xFFu8).flat_map(|opcode| (0..=0xFFu8).map(move |modrm| (opcode, modrm)))
        {
            let is_division = matches!(opcode, 0xF6 | 0xF7) && (modrm >> 3) & 7 >= 6;
            let is_prefix =
                matches!(opcode, 0x26 | 0x2E | 0x36 | 0x3E | 0x64 | 0x65 | 0x66 | 0x67 | 0x40..=0x4F);
            if !is_division && !is_prefix {
                assert_eq!(
                    Division::decode(&[opcode, modrm, 0xF8, 0xF8, 0xF8, 0xF8, 0xF8]),
                    None,
                    "{opcode:02X}"
                );
            }
        }
        for code in [
            &[0xF0, 0xF7, 0x38][..],
            &[0xF3, 0xF7, 0xF8],
            &[0x48, 0x66, 0xF7, 0xF8],
            &[0x48, 0x48, 0xF7, 0xF8],
        ] {
            assert_eq!(Division::decode(code), None, "{code:02X?}");
        }
        assert_eq!(Division::decode(&[]), None);
        let endless = [0x66; LONGEST];
        assert_eq!(Division::decode(&endless), None);
        let too_long = [&[0x66; 14][..], &[0xF7, 0xF8]].concat();
        assert_eq!(Division::decode(&too_long), None, "no processor runs more than 15 bytes");
    }
}
