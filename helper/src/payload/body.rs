//! The body of a payload: a list of tagged fields.

use std::time::Duration;

use super::{NONCE, Payload, PayloadError, Private, PrivateFile};

mod tag {
    pub(super) const ARGUMENT: u16 = 1;
    pub(super) const VARIABLE: u16 = 2;
    pub(super) const CWD: u16 = 3;
    pub(super) const FILE: u16 = 4;
    pub(super) const PRIVATE_DIR: u16 = 5;
    pub(super) const NEEDLE: u16 = 6;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const STALL_TIMEOUT: u16 = 8;
    pub(super) const GRACE: u16 = 9;
    pub(super) const SPOOL_LIMIT: u16 = 10;
    pub(super) const CGROUP: u16 = 11;
    pub(super) const INHERIT: u16 = 12;
    pub(super) const NOTE: u16 = 13;

    pub(super) const FILE_NAME: u16 = 1;
    pub(super) const FILE_CONTENT: u16 = 2;
    pub(super) const FILE_MODE: u16 = 3;
    pub(super) const FILE_ENV: u16 = 4;
}

impl Payload {
    pub(super) fn size_hint(&self) -> usize {
        let argv: usize = self.argv.iter().map(|word| word.len() + 6).sum();
        let env: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.0.len() + 10)
            .sum();
        let files: usize = self
            .files
            .iter()
            .map(|file| file.content.0.len() + file.name.len() + 128)
            .sum();
        let needles: usize = self.needles.iter().map(|needle| needle.0.len() + 6).sum();
        let notes: usize = self.notes.iter().map(|note| note.len() + 6).sum();
        argv + env + files + needles + notes + 1024
    }

    pub(super) fn encode_body(&self, out: &mut Vec<u8>) {
        for word in &self.argv {
            put(out, tag::ARGUMENT, &[word]);
        }
        for (name, value) in &self.env {
            put(
                out,
                tag::VARIABLE,
                &[&short(name.len()), name, value.expose()],
            );
        }
        for file in &self.files {
            file.encode(out);
        }
        for needle in &self.needles {
            put(out, tag::NEEDLE, &[needle.expose()]);
        }
        for (tag, path) in [
            (tag::CWD, &self.cwd),
            (tag::PRIVATE_DIR, &self.private_dir),
            (tag::CGROUP, &self.cgroup),
        ] {
            if let Some(path) = path {
                put(out, tag, &[path]);
            }
        }
        let durations = [
            (tag::TIMEOUT, self.timeout),
            (tag::STALL_TIMEOUT, self.stall_timeout),
        ];
        for (tag, duration) in durations
            .into_iter()
            .chain([(tag::GRACE, Some(self.grace))])
        {
            if let Some(duration) = duration {
                put(out, tag, &[&millis(duration)]);
            }
        }
        put(out, tag::SPOOL_LIMIT, &[&self.spool_limit.to_le_bytes()]);
        if self.inherit {
            put(out, tag::INHERIT, &[]);
        }
        for note in &self.notes {
            put(out, tag::NOTE, &[note.as_bytes()]);
        }
    }

    pub(super) fn decode_body(nonce: [u8; NONCE], body: &[u8]) -> Result<Self, PayloadError> {
        let mut payload = Self {
            nonce,
            spool_limit: u64::MAX,
            ..Self::default()
        };
        for (tag, value) in fields(body).ok_or(PayloadError::Corrupt)? {
            let malformed = PayloadError::Field(tag);
            let duration = || number(value).map(Duration::from_millis).ok_or(malformed);
            match tag {
                tag::ARGUMENT => payload.argv.push(value.to_vec()),
                tag::VARIABLE => payload.env.push(variable(value).ok_or(malformed)?),
                tag::CWD => payload.cwd = Some(value.to_vec()),
                tag::FILE => payload
                    .files
                    .push(PrivateFile::decode(value).ok_or(malformed)?),
                tag::PRIVATE_DIR => payload.private_dir = Some(value.to_vec()),
                tag::NEEDLE => payload.needles.push(value.into()),
                tag::TIMEOUT => payload.timeout = Some(duration()?),
                tag::STALL_TIMEOUT => payload.stall_timeout = Some(duration()?),
                tag::GRACE => payload.grace = duration()?,
                tag::SPOOL_LIMIT => payload.spool_limit = number(value).ok_or(malformed)?,
                tag::CGROUP => payload.cgroup = Some(value.to_vec()),
                tag::INHERIT => payload.inherit = true,
                tag::NOTE => {
                    let note = String::from_utf8(value.to_vec());
                    payload.notes.push(note.map_err(|_| malformed)?);
                }
                _ => {}
            }
        }
        payload.validate()?;
        Ok(payload)
    }
}

impl PrivateFile {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        put(out, tag::FILE, &[]);
        put(out, tag::FILE_NAME, &[&self.name]);
        put(out, tag::FILE_CONTENT, &[self.content.expose()]);
        put(out, tag::FILE_MODE, &[&self.mode.to_le_bytes()]);
        if let Some(name) = &self.env {
            put(out, tag::FILE_ENV, &[name]);
        }
        let length = short(out.len() - start - 6);
        out[start + 2..start + 6].copy_from_slice(&length);
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut file = Self {
            mode: 0o600,
            ..Self::default()
        };
        for (tag, value) in fields(value)? {
            match tag {
                tag::FILE_NAME => file.name = value.to_vec(),
                tag::FILE_CONTENT => file.content = value.into(),
                tag::FILE_MODE => file.mode = u32::from_le_bytes(value.try_into().ok()?) & 0o777,
                tag::FILE_ENV => file.env = Some(value.to_vec()),
                _ => {}
            }
        }
        Some(file)
    }
}

fn variable(value: &[u8]) -> Option<(Vec<u8>, Private)> {
    let (&length, rest) = value.split_first_chunk()?;
    let (name, value) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    Some((name.to_vec(), value.into()))
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

fn millis(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .to_le_bytes()
}

/// A length on the wire. Saturates: such a body is over [`MAX_BODY`] and refused as a whole.
fn short(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(out: &mut Vec<u8>, tag: u16, parts: &[&[u8]]) {
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&short(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The fields of a list; `None` if it is malformed.
fn fields(mut list: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut fields = Vec::new();
    while !list.is_empty() {
        let (&tag, rest) = list.split_first_chunk()?;
        let (&length, rest) = rest.split_first_chunk()?;
        let (value, rest) =
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
        fields.push((u16::from_le_bytes(tag), value));
        list = rest;
    }
    Some(fields)
}
