//! The frame around a payload: found after garbage, checked, and not to be forged by a value.

use super::{NONCE, Payload, PayloadError, Private};

/// Starts each frame.
pub const MAGIC: [u8; 8] = *b"\xF5HRPAY\x01\n";
/// The longest body.
pub const MAX_BODY: usize = 16 << 20;

const STUFFED: u8 = 0xF5;
const PREFIX: usize = NONCE + 4;
const CHECKSUM: usize = 8;

/// The frame of a payload. Fails if it could not be run, or is too long.
pub fn encode(payload: &Payload) -> Result<Private, PayloadError> {
    payload.validate()?;
    let mut frame = Private(Vec::with_capacity(PREFIX + payload.size_hint() + CHECKSUM));
    frame.0.extend_from_slice(&payload.nonce);
    frame.0.extend_from_slice(&[0; 4]);
    payload.encode_body(&mut frame.0);
    let length = frame.0.len() - PREFIX;
    let short = u32::try_from(length).unwrap_or(u32::MAX);
    if length > MAX_BODY {
        return Err(PayloadError::TooLong(short));
    }
    frame.0[NONCE..PREFIX].copy_from_slice(&short.to_le_bytes());
    let checksum = fnv1a(&frame.0);
    frame.0.extend_from_slice(&checksum.to_le_bytes());

    let stuffing: usize = frame
        .0
        .iter()
        .map(|&byte| usize::from(byte == STUFFED))
        .sum();
    let mut wire = Private(Vec::with_capacity(MAGIC.len() + frame.0.len() + stuffing));
    wire.0.extend_from_slice(&MAGIC);
    for &byte in &frame.0 {
        wire.0.push(byte);
        if byte == STUFFED {
            wire.0.push(0);
        }
    }
    Ok(wire)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Finds payloads in a stream of bytes, however it is cut.
#[derive(Debug)]
pub struct Decoder {
    /// How much of the magic has been seen, up to [`MAGIC`]'s length: then a frame is being read.
    matched: usize,
    /// In a frame: how much of a magic (or of a stuffed byte) has been seen; 0 or more.
    escape: usize,
    frame: Private,
    /// How long the frame is, as far as is known.
    wanted: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            matched: 0,
            escape: 0,
            frame: Private::default(),
            wanted: PREFIX,
        }
    }
}

impl Decoder {
    /// A decoder before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of a payload. `None`: all was taken, and more is needed.
    /// After an error it looks for the next payload; call it again with what is left.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Payload>, PayloadError> {
        while !input.is_empty() {
            if self.matched < MAGIC.len() {
                self.hunt(input);
            } else if self.escape > 0 {
                self.unescape(input)?;
            } else {
                self.copy(input);
            }
            if self.frame.0.len() == self.wanted && self.escape == 0 {
                if self.wanted > PREFIX {
                    return self.complete().map(Some);
                }
                self.learn_length()?;
            }
        }
        Ok(None)
    }

    /// The error of an input that ends here.
    pub fn end(&self) -> PayloadError {
        PayloadError::Truncated
    }

    fn hunt(&mut self, input: &mut &[u8]) {
        let Some((&byte, rest)) = input.split_first() else {
            return;
        };
        *input = rest;
        self.matched = match byte {
            byte if byte == MAGIC[self.matched] => self.matched + 1,
            STUFFED => 1,
            _ => 0,
        };
    }

    /// After `F5` inside a frame: a stuffed byte, or the magic of another frame, since this one was cut.
    fn unescape(&mut self, input: &mut &[u8]) -> Result<(), PayloadError> {
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(());
        };
        if self.escape == 1 && byte == 0 {
            *input = rest;
            self.escape = 0;
            self.frame.0.push(STUFFED);
        } else if byte == MAGIC[self.escape] {
            *input = rest;
            self.escape += 1;
            if self.escape == MAGIC.len() {
                self.restart(MAGIC.len());
            }
        } else {
            self.restart(0);
            return Err(PayloadError::Corrupt);
        }
        Ok(())
    }

    fn copy(&mut self, input: &mut &[u8]) {
        let room = self.wanted - self.frame.0.len();
        let near = &input[..room.min(input.len())];
        let plain = near
            .iter()
            .position(|&byte| byte == STUFFED)
            .unwrap_or(near.len());
        self.frame.0.extend_from_slice(&near[..plain]);
        *input = &input[plain..];
        if plain < near.len() {
            *input = &input[1..];
            self.escape = 1;
        }
    }

    fn learn_length(&mut self) -> Result<(), PayloadError> {
        let length = u32::from_le_bytes(
            self.frame.0[NONCE..PREFIX]
                .try_into()
                .expect("the length has 4 bytes"),
        );
        let body = usize::try_from(length).unwrap_or(usize::MAX);
        if body > MAX_BODY {
            self.restart(0);
            return Err(PayloadError::TooLong(length));
        }
        self.wanted = PREFIX + body + CHECKSUM;
        // Once, so that growing leaves no copies of values behind.
        self.frame.0.reserve_exact(body + CHECKSUM);
        Ok(())
    }

    fn complete(&mut self) -> Result<Payload, PayloadError> {
        let frame = std::mem::take(&mut self.frame);
        self.restart(0);
        let (checked, checksum) = frame.0.split_at(frame.0.len() - CHECKSUM);
        if fnv1a(checked).to_le_bytes() != checksum {
            return Err(PayloadError::Corrupt);
        }
        let nonce = checked[..NONCE]
            .try_into()
            .expect("the nonce has its length");
        Payload::decode_body(nonce, &checked[PREFIX..])
    }

    fn restart(&mut self, matched: usize) {
        *self = Self {
            matched,
            ..Self::default()
        };
    }
}
