//! A receipt: which version gave an answer, when and to whom, in 64 characters that cannot be forged.
//!
//! ```text
//! format 1 | arm 1 | split 1 | slot 2 | unit 3 | revision 4 | version 4 | trial 4 | issued 4 | serial 8 | MAC 16        48 bytes
//! ```
//! Numbers are big-endian, the text is base64url without padding (RFC 4648). The MAC is HMAC-SHA-256 (RFC 2104) over the name of the
//! endpoint and the bytes before it, cut to 128 bits. `version` and `trial` are hashes of what they name. The receipt holds nothing of
//! the request but its slot and unit, which are hashes of the sticky key.
//!
//! Not here: which receipts have been used (`endpoint`). Next: `sent`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The characters of a receipt.
pub const CHARACTERS: usize = 64;
const BYTES: usize = 48;
const BODY: usize = 32;
const FORMAT: u8 = 1;
/// The arm of an answer that is no evidence.
const NO_ARM: u8 = 0xff;
/// The slot of an answer that no slot decided.
const NO_SLOT: u16 = 0xffff;
/// The unit of an answer without a sticky key.
const NO_UNIT: u32 = 0xff_ffff;

/// The bytes of a key.
pub const KEY_BYTES: usize = 32;

/// What a receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The arm of the trial that gave the answer, and the split that was served; `None` for an answer that is no evidence.
    pub arm: Option<ReceiptArm>,
    /// The slot that decided.
    pub slot: Option<u16>,
    /// The unit of the sticky key.
    pub unit: Option<u32>,
    /// The revision of the endpoint.
    pub revision: u32,
    /// The hash of the version's name and digest.
    pub version: u32,
    /// When the answer was given, in seconds since 1970.
    pub issued_s: u32,
    /// Its number, which no other receipt of the endpoint has.
    pub serial: u64,
}

/// The place of an answer in a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptArm {
    /// The tag of the trial.
    pub trial: u32,
    /// The number of the arm.
    pub arm: u8,
    /// The number of the split.
    pub split: u8,
}

/// Why text is no receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptFault {
    /// It has not the form of one.
    Malformed,
    /// It has the form, and was not made with the key for that endpoint.
    Forged,
}

/// The key of an endpoint's receipts.
pub struct ReceiptKey {
    bytes: [u8; KEY_BYTES],
    /// With the key and the name of the endpoint in it.
    mac: Hmac<Sha256>,
}

impl ReceiptKey {
    /// The key of an endpoint.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn new(bytes: [u8; KEY_BYTES], endpoint: &str) -> ReceiptKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(&bytes).expect("HMAC takes keys of any length");
        mac.update(endpoint.as_bytes());
        mac.update(&[0]);
        ReceiptKey { bytes, mac }
    }

    /// The bytes, for the file that keeps them.
    pub fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// The text of a receipt.
    ///
    /// # Panics
    /// Never: the text of 48 bytes has 64 characters.
    pub fn text(&self, receipt: &Receipt) -> [u8; CHARACTERS] {
        let mut bytes = [0; BYTES];
        bytes[..BODY].copy_from_slice(&receipt.body());
        let mac = self.mac.clone().chain_update(&bytes[..BODY]).finalize().into_bytes();
        bytes[BODY..].copy_from_slice(&mac[..BYTES - BODY]);
        let mut text = [0; CHARACTERS];
        let length = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).expect("48 bytes have 64 characters");
        debug_assert_eq!(length, CHARACTERS);
        text
    }

    /// The receipt of a text.
    ///
    /// # Errors
    /// Why it is none. The MAC is compared in constant time, and before anything in the receipt is looked at.
    pub fn read(&self, text: &[u8]) -> Result<Receipt, ReceiptFault> {
        let mut bytes = [0; BYTES];
        let is_whole = text.len() == CHARACTERS
            && URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).is_ok_and(|length| length == BYTES);
        if !is_whole || bytes[0] != FORMAT {
            return Err(ReceiptFault::Malformed);
        }
        let mac = self.mac.clone().chain_update(&bytes[..BODY]);
        mac.verify_truncated_left(&bytes[BODY..]).map_err(|_| ReceiptFault::Forged)?;
        Receipt::of_body(&bytes).ok_or(ReceiptFault::Malformed)
    }
}

impl Receipt {
    fn body(&self) -> [u8; BODY] {
        let mut body = [0; BODY];
        let place = self.arm.unwrap_or(ReceiptArm { trial: 0, arm: NO_ARM, split: 0 });
        let unit = self.unit.unwrap_or(NO_UNIT).to_be_bytes();
        body[..3].copy_from_slice(&[FORMAT, place.arm, place.split]);
        body[3..5].copy_from_slice(&self.slot.unwrap_or(NO_SLOT).to_be_bytes());
        body[5..8].copy_from_slice(&unit[1..]);
        body[8..12].copy_from_slice(&self.revision.to_be_bytes());
        body[12..16].copy_from_slice(&self.version.to_be_bytes());
        body[16..20].copy_from_slice(&place.trial.to_be_bytes());
        body[20..24].copy_from_slice(&self.issued_s.to_be_bytes());
        body[24..].copy_from_slice(&self.serial.to_be_bytes());
        body
    }

    fn of_body(bytes: &[u8]) -> Option<Receipt> {
        let number = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let (arm, split) = (bytes[1], bytes[2]);
        let slot = u16::from_be_bytes([bytes[3], bytes[4]]);
        let unit = u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]]);
        let place = ReceiptArm { trial: number(16)?, arm, split };
        Some(Receipt {
            arm: (arm != NO_ARM).then_some(place),
            slot: (slot != NO_SLOT).then_some(slot),
            unit: (unit != NO_UNIT).then_some(unit),
            revision: number(8)?,
            version: number(12)?,
            issued_s: number(20)?,
            serial: u64::from_be_bytes(*bytes.get(24..)?.first_chunk()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ReceiptKey {
        ReceiptKey::new([7; KEY_BYTES], "digits")
    }

    fn receipt() -> Receipt {
        Receipt {
            arm: Some(ReceiptArm { trial: 0xdead_beef, arm: 1, split: 3 }),
            slot: Some(9_999),
            unit: Some(999_999),
            revision: 42,
            version: 0x0102_0304,
            issued_s: 1_767_261_600,
            serial: 1 << 40,
        }
    }

    // Expected text: hmac and base64 of Python's standard library.
    #[test]
    fn a_receipt_has_the_text_of_its_definition() {
        let text = key().text(&receipt());
        assert_eq!(
            std::str::from_utf8(&text).unwrap(),
            "AQEDJw8PQj8AAAAqAQIDBN6tvu9pVkWgAAABAAAAAABxxujBtbNyPcYUT9NXaoV9"
        );
        assert_eq!(key().read(&text), Ok(receipt()));
    }

    #[test]
    fn what_is_missing_comes_back_as_missing() {
        let bare = Receipt { arm: None, slot: None, unit: None, ..receipt() };
        assert_eq!(key().read(&key().text(&bare)), Ok(bare));
        let first = Receipt {
            arm: Some(ReceiptArm { trial: 0, arm: 0, split: 0 }),
            slot: Some(0),
            unit: Some(0),
            ..bare
        };
        assert_eq!(key().read(&key().text(&first)), Ok(first));
    }

    #[test]
    fn a_receipt_of_another_key_or_endpoint_is_forged() {
        let text = key().text(&receipt());
        for other in [ReceiptKey::new([8; KEY_BYTES], "digits"), ReceiptKey::new([7; KEY_BYTES], "digit")] {
            assert_eq!(other.read(&text), Err(ReceiptFault::Forged));
        }
    }

    #[test]
    fn no_change_of_a_receipt_is_taken() {
        let (key, text) = (key(), key().text(&receipt()));
        for place in 0..CHARACTERS {
            for byte in 0..=u8::MAX {
                let mut changed = text;
                changed[place] = byte;
                assert_eq!(key.read(&changed).is_ok(), changed == text, "{byte} at {place}");
            }
        }
        assert_eq!(key.read(&text[..CHARACTERS - 1]), Err(ReceiptFault::Malformed));
        assert_eq!(key.read(&[&text[..], b"A"].concat()), Err(ReceiptFault::Malformed));
        assert_eq!(key.read(b""), Err(ReceiptFault::Malformed));
    }

    #[test]
    fn any_text_is_a_receipt_or_refused() {
        let (key, text) = (key(), key().text(&receipt()));
        bolero::check!().with_type::<(Vec<u8>, u8, u8)>().for_each(|(bytes, at, cut)| {
            let mut changed = text.to_vec();
            let at = usize::from(*at) % changed.len();
            changed.splice(at..(at + usize::from(*cut)).min(CHARACTERS), bytes.iter().copied());
            for text in [bytes, &changed] {
                if let Ok(read) = key.read(text) {
                    assert_eq!(key.text(&read).as_slice(), &**text);
                }
            }
        });
    }
}
