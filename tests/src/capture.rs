//! What passed through a proxy, and what a WebSocket in it said.

use std::sync::{Arc, Mutex, PoisonError};

/// What passes, by connection and direction.
#[derive(Debug, Clone, Default)]
pub struct Capture(Arc<Mutex<Vec<Vec<u8>>>>);

impl Capture {
    /// Begins one direction of a connection; its number.
    pub(crate) fn begin(&self) -> usize {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.push(Vec::new());
        streams.len() - 1
    }

    /// Keeps what passed.
    pub(crate) fn keep(&self, stream: usize, bytes: &[u8]) {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams[stream].extend_from_slice(bytes);
    }

    /// Each stream as it passed.
    pub fn streams(&self) -> Vec<Vec<u8>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Each stream as whoever received it understood it: a client masks what it sends.
    pub fn understood(&self) -> Vec<Vec<u8>> {
        self.streams()
            .iter()
            .map(|stream| understood(stream))
            .collect()
    }
}

/// The head of HTTP, and what is in the frames behind it.
fn understood(stream: &[u8]) -> Vec<u8> {
    let head = stream.windows(4).position(|window| window == b"\r\n\r\n");
    let (head, mut rest) = stream.split_at(head.map_or(stream.len(), |at| at + 4));
    let mut text = head.to_vec();
    while let Some((payload, after)) = frame(rest) {
        text.extend(payload);
        rest = after;
    }
    text
}

/// The first frame of RFC 6455, and what follows it; of one that was cut what there is.
fn frame(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (&[kind, length], rest) = bytes.split_first_chunk()?;
    assert_eq!(kind & 0x70, 0, "a frame of an extension: is it compressed?");
    let (length, rest) = match length & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length), rest)
        }
        short => (u64::from(short), rest),
    };
    let (mask, rest) = if bytes[1] & 0x80 == 0 {
        ([0; 4], rest)
    } else {
        let (mask, rest) = rest.split_first_chunk()?;
        (*mask, rest)
    };
    let length = usize::try_from(length).ok()?.min(rest.len());
    let (payload, after) = rest.split_at(length);
    let unmasked = payload.iter().zip(mask.iter().cycle());
    Some((unmasked.map(|(byte, mask)| byte ^ mask).collect(), after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_and_plain_frames_of_each_length_are_understood() {
        for length in [0, 5, 125, 126, 70_000] {
            let payload: Vec<u8> = (0..length).map(|at: u32| at.to_le_bytes()[0]).collect();
            let mut stream = b"GET / HTTP/1.1\r\n\r\n".to_vec();
            let head = stream.clone();
            for mask in [None, Some([1_u8, 2, 3, 250])] {
                let bit = if mask.is_some() { 0x80 } else { 0 };
                stream.push(0x82);
                match u16::try_from(length) {
                    Ok(short @ ..126) => stream.push(bit + short.to_le_bytes()[0]),
                    Ok(middle) => {
                        stream.push(bit + 126);
                        stream.extend(middle.to_be_bytes());
                    }
                    Err(_) => {
                        stream.push(bit + 127);
                        stream.extend(u64::from(length).to_be_bytes());
                    }
                }
                stream.extend(
                    mask.unwrap_or_default()
                        .iter()
                        .take(if bit == 0 { 0 } else { 4 }),
                );
                let key = mask.unwrap_or_default();
                stream.extend(
                    payload
                        .iter()
                        .zip(key.iter().cycle())
                        .map(|(byte, key)| byte ^ key),
                );
            }
            let capture = Capture::default();
            let number = capture.begin();
            capture.keep(number, &stream);
            assert_eq!(
                capture.understood(),
                [[head, payload.clone(), payload].concat()]
            );
        }
    }
}
