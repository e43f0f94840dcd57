//! The formats between helper and runner: what is written is read, and nothing else is ever a panic.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use hybrid_runner_helper::TextError;
use hybrid_runner_helper::container::{self, GRACES, Line, grace_of, stop_signal};
use hybrid_runner_helper::end::{ChildEnd, End, How, SpawnFailure, Step};
use hybrid_runner_helper::payload::{self, Decoder, MAGIC, Payload, PayloadError, PrivateFile};
use hybrid_runner_helper::report::Report;
use hybrid_runner_helper::spool::{
    self, GapReason, Header, Item, Kind, Reader, Record, SpoolError,
};
use hybrid_runner_helper::started::{Child, Started};
use hybrid_runner_helper::stop::Stop;
use proptest::prelude::*;

fn sample() -> Payload {
    Payload {
        nonce: [0xF5; 16],
        argv: vec![
            b"sh".to_vec(),
            b"-c".to_vec(),
            b"echo \xF5HRPAY\x01\n".to_vec(),
        ],
        env: vec![
            (b"A".to_vec(), b"x=y\xF5".into()),
            (b"EMPTY".to_vec(), b"".into()),
        ],
        inherit: true,
        cwd: Some(b"/tmp".to_vec()),
        files: vec![
            PrivateFile {
                name: b"config".to_vec(),
                content: [b"\0{}".as_slice(), &MAGIC].concat().into(),
                mode: 0o400,
                env: Some(b"WORKFLOW_CONFIG".to_vec()),
            },
            PrivateFile {
                name: b"empty".to_vec(),
                ..PrivateFile::default()
            },
        ],
        private_dir: Some(b"/dev/shm/x".to_vec()),
        needles: vec![b"hunter22".into(), MAGIC.to_vec().into()],
        timeout: Some(Duration::from_millis(1500)),
        stall_timeout: None,
        grace: Duration::from_secs(30),
        spool_limit: 1 << 30,
        cgroup: Some(b"/sys/fs/cgroup/x".to_vec()),
        notes: vec!["pulled image `x` in 12 s".to_owned(), String::new()],
    }
}

fn wire(payload: &Payload) -> Vec<u8> {
    payload::encode(payload).unwrap().expose().to_vec()
}

fn decode_all(mut input: &[u8]) -> Vec<Result<Payload, PayloadError>> {
    let mut decoder = Decoder::new();
    let mut found = Vec::new();
    while !input.is_empty() {
        found.extend(decoder.push(&mut input).transpose());
    }
    found
}

#[test]
fn a_payload_survives_the_wire_whatever_is_in_it() {
    assert_eq!(decode_all(&wire(&sample())), [Ok(sample())]);
}

#[test]
fn a_payload_survives_being_cut_into_single_bytes() {
    let wire = wire(&sample());
    let mut decoder = Decoder::new();
    for (at, byte) in wire.iter().enumerate() {
        let found = decoder.push(&mut std::slice::from_ref(byte)).unwrap();
        assert_eq!(found.is_some(), at + 1 == wire.len(), "at byte {at}");
    }
}

#[test]
fn a_payload_truncated_at_any_byte_is_none() {
    let wire = wire(&sample());
    for end in 0..wire.len() {
        assert_eq!(decode_all(&wire[..end]), [], "cut at {end}");
    }
    assert_eq!(Decoder::new().end(), PayloadError::Truncated);
}

#[test]
fn a_payload_is_found_after_garbage_and_after_one_that_was_cut() {
    let wire = wire(&sample());
    for end in 0..wire.len() {
        let input = [b"\xF5HR garbage".as_slice(), &wire[..end], &wire].concat();
        let found = decode_all(&input);
        assert_eq!(found.last(), Some(&Ok(sample())), "cut at {end}");
        assert_eq!(
            found.iter().filter(|found| found.is_ok()).count(),
            1,
            "cut at {end}"
        );
    }
}

#[test]
fn a_second_payload_is_told_apart() {
    let second = Payload {
        nonce: [7; 16],
        ..sample()
    };
    let input = [wire(&sample()), wire(&second)].concat();
    assert_eq!(decode_all(&input), [Ok(sample()), Ok(second)]);
}

#[test]
fn a_changed_byte_never_gives_another_payload() {
    let good = wire(&sample());
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        assert!(
            decode_all(&bad).iter().all(Result::is_err),
            "changed at {at}"
        );
    }
}

/// A frame of these fields, as it stands on the wire.
fn wire_of(fields: &[(u16, &[u8])]) -> Vec<u8> {
    let mut frame = vec![9; 16];
    let mut body = vec![];
    for (tag, value) in fields {
        body.extend(tag.to_le_bytes());
        body.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
        body.extend(*value);
    }
    frame.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    frame.extend(body);
    let sum = frame.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    frame.extend(sum.to_le_bytes());
    let stuffed = frame.into_iter().flat_map(|byte| {
        if byte == 0xF5 {
            vec![byte, 0]
        } else {
            vec![byte]
        }
    });
    MAGIC.into_iter().chain(stuffed).collect()
}

#[test]
fn an_unknown_tag_is_skipped() {
    let wire = wire_of(&[(999, b"new"), (1, b"true"), (998, b"")]);
    let found = decode_all(&wire);
    assert_eq!(found[0].as_ref().unwrap().argv, [b"true".to_vec()]);
}

#[test]
fn a_note_that_is_no_text_is_malformed() {
    let wire = wire_of(&[(1, b"true"), (13, b"\xFF")]);
    assert_eq!(decode_all(&wire), [Err(PayloadError::Field(13))]);
}

#[test]
fn what_could_not_be_run_is_refused_before_it_is_sent() {
    let refused = |change: fn(&mut Payload)| {
        let mut payload = sample();
        change(&mut payload);
        assert!(matches!(
            payload::encode(&payload),
            Err(PayloadError::Invalid(_))
        ));
    };
    refused(|payload| payload.argv.clear());
    refused(|payload| payload.argv[1] = b"a\0b".to_vec());
    refused(|payload| payload.env[0].0 = b"A=B".to_vec());
    refused(|payload| payload.env[0].1 = b"a\0b".into());
    refused(|payload| payload.files[0].name = b"../x".to_vec());
    refused(|payload| payload.files[0].name = b"..".to_vec());
    refused(|payload| payload.private_dir = None);
    refused(|payload| payload.private_dir = Some(b"relative".to_vec()));
}

#[test]
fn a_payload_that_is_too_long_is_refused_on_both_sides() {
    let long = Payload {
        needles: vec![vec![b'x'; payload::MAX_BODY].into()],
        ..sample()
    };
    assert!(matches!(
        payload::encode(&long),
        Err(PayloadError::TooLong(_))
    ));
    let head = [MAGIC.as_slice(), &[0; 16], &u32::MAX.to_le_bytes()].concat();
    assert!(matches!(
        decode_all(&head)[..],
        [Err(PayloadError::TooLong(u32::MAX)), ..]
    ));
}

#[test]
fn values_are_not_printed() {
    let text = format!("{:?}", sample());
    assert!(!text.contains("hunter22") && text.contains("***"), "{text}");
}

fn ends() -> Vec<How> {
    vec![
        How::Exited(255),
        How::Signaled(9),
        How::TimedOut,
        How::Stalled,
        How::OutOfMemory,
        How::Terminated(ChildEnd::Exited(3)),
        How::Terminated(ChildEnd::Signaled(15)),
        How::Stopped { by: None },
        How::Stopped {
            by: Some("ä%\n=b".to_owned()),
        },
        How::SpawnFailed(SpawnFailure {
            step: Step::Program,
            errno: 2,
            program: b"no\xFFsuch\nthing".to_vec(),
        }),
    ]
}

#[test]
fn every_end_survives_its_record() {
    for how in ends() {
        for started in [None, Some(-1)] {
            let end = End {
                how: how.clone(),
                started,
                ended: 17,
                spool: u64::MAX,
                masked: 1,
                over_limit: 2,
                disk_full: 3,
                oom_kills: 4,
                left: 5,
            };
            let mut bytes = end.encode();
            assert_eq!(End::parse(&bytes), Ok(end.clone()));
            bytes.resize(4096, b'\n');
            assert_eq!(End::parse(&bytes), Ok(end));
        }
    }
}

#[test]
fn the_records_of_start_and_stop_survive() {
    let mut started = Started {
        helper: 1,
        boot: "b".to_owned(),
        cookie: "c".to_owned(),
        private_dir: Some(b"/dev/shm/\xFF".to_vec()),
        cgroup: None,
        child: None,
    };
    assert_eq!(Started::parse(&started.encode()), Ok(started.clone()));
    started.child = Some(Child {
        pid: 77,
        ticks: 12,
        time: 99,
    });
    assert_eq!(Started::parse(&started.encode()), Ok(started));
    let stop = Stop {
        grace: Duration::from_millis(1234),
        by: Some("me".to_owned()),
    };
    assert_eq!(Stop::parse(&stop.encode()), Ok(stop));
}

#[test]
fn records_truncated_at_any_byte_are_errors() {
    let bytes = End {
        how: How::Exited(0),
        started: Some(1),
        ended: 2,
        spool: 3,
        masked: 0,
        over_limit: 0,
        disk_full: 0,
        oom_kills: 0,
        left: 0,
    }
    .encode();
    for end in 0..bytes.len() - 1 {
        assert!(End::parse(&bytes[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(End::parse(&[0; 4096]), Err(TextError::NotARecord));
}

#[test]
fn unknown_keys_are_tolerated_and_newer_versions_named() {
    let record = b"hybrid-runner end 1\nhow=exit\ncode=3\nnew=1\nended=2\nspool=3\n.\n";
    assert_eq!(End::parse(record).unwrap().how, How::Exited(3));
    assert_eq!(
        End::parse(b"hybrid-runner end 2\nhow=exit\n.\n"),
        Err(TextError::Version(2))
    );
}

#[test]
fn every_report_survives_its_line() {
    for report in [
        Report::Started {
            pid: 7,
            time: 1_764_000_000_000_000,
        },
        Report::SpawnFailed,
        Report::Stopped,
        Report::BadPayload("payload is corrupt".to_owned()),
        Report::Failed {
            errno: 28,
            what: "cannot write".to_owned(),
        },
        Report::Busy,
        Report::Already,
    ] {
        assert_eq!(Report::parse(&format!("{report}\n")), Some(report));
    }
}

fn spool_with(records: &[Record]) -> (tempfile::NamedTempFile, Vec<u64>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut offsets = vec![0];
    for record in records {
        let bytes = record.encode();
        file.write_all(&bytes).unwrap();
        offsets.push(offsets.last().unwrap() + bytes.len() as u64);
    }
    (file, offsets)
}

fn reader(file: &tempfile::NamedTempFile) -> Reader {
    Reader::new(File::open(file.path()).unwrap())
}

#[test]
fn a_spool_is_read_from_any_cursor() {
    let records: Vec<_> = [
        Item::Out(b"one\n".to_vec()),
        Item::Err(vec![0xFF; spool::MAX_PAYLOAD]),
        Item::Gap {
            bytes: Some(7),
            reason: GapReason::DiskFull,
        },
        Item::Out(vec![]),
        Item::Gap {
            bytes: None,
            reason: GapReason::Limit,
        },
        Item::Out(vec![b'x'; spool::MAX_PAYLOAD]),
    ]
    .into_iter()
    .map(|item| Record { time: -5, item })
    .collect();
    let (file, offsets) = spool_with(&records);
    for first in 0..=records.len() {
        let mut reader = reader(&file);
        let mut offset = offsets[first];
        for (record, next) in records.iter().zip(&offsets[1..]).skip(first) {
            assert_eq!(
                reader.read_at(offset).unwrap(),
                Some((record.clone(), *next))
            );
            offset = *next;
        }
        assert!(reader.read_at(offset).unwrap().is_none());
    }
}

#[test]
fn a_record_appears_once_it_is_whole() {
    let record = Record {
        time: 1,
        item: Item::Out(b"hello".to_vec()),
    };
    let bytes = record.encode();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut reader = reader(&file);
    for byte in &bytes {
        assert_eq!(reader.read_at(0).unwrap(), None);
        file.write_all(std::slice::from_ref(byte)).unwrap();
    }
    assert_eq!(
        reader.read_at(0).unwrap(),
        Some((record, bytes.len() as u64))
    );
}

#[test]
fn a_damaged_spool_is_an_error_that_names_the_offset() {
    let (mut file, offsets) = spool_with(&[Record {
        time: 1,
        item: Item::Out(b"hello".to_vec()),
    }]);
    file.write_all(&[0xFF; 32]).unwrap();
    let mut reader = reader(&file);
    assert!(
        matches!(reader.read_at(offsets[1]), Err(SpoolError::Corrupt { offset }) if offset == offsets[1])
    );
    assert!(matches!(
        reader.read_at(1 << 40),
        Err(SpoolError::BehindEnd {
            offset: 0x100_0000_0000,
            ..
        })
    ));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        decode_all(&bytes);
        decode_all(&[MAGIC.as_slice(), &bytes].concat());
        drop((End::parse(&bytes), Started::parse(&bytes), Stop::parse(&bytes)));
        let text = [b"hybrid-runner end 1\n".as_slice(), &bytes].concat();
        drop(End::parse(&text));
        Report::parse(&String::from_utf8_lossy(&bytes));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let mut reader = reader(&file);
        let mut offset = 0;
        while let Ok(Some((_, next))) = reader.read_at(offset) {
            offset = next;
        }
    }

    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut frame = vec![0; 16];
        frame.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        frame.extend(&body);
        let sum = frame.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        frame.extend(sum.to_le_bytes());
        let mut wire = MAGIC.to_vec();
        for byte in frame {
            wire.push(byte);
            if byte == 0xF5 { wire.push(0); }
        }
        prop_assert_eq!(decode_all(&wire).len(), 1);
    }

    #[test]
    fn every_header_survives(len in 9_u32..=65536, time: i64) {
        for kind in [Kind::Out, Kind::Err, Kind::Gap] {
            let header = Header { len, kind, time };
            prop_assert_eq!(Header::decode(header.encode()), Some(header));
        }
    }
}

const MARK: &str = "0123456789abcdef0123456789ABCDEF";

/// What stands behind the needle of a line.
fn behind_needle(line: &[u8]) -> &[u8] {
    line.strip_prefix(&container::needle(MARK)[..]).unwrap()
}

fn line_of(how: How, started: Option<i64>) -> Line {
    Line::End(container::End {
        how,
        started,
        ended: -2,
        out: 1,
        err: u64::MAX,
        masked: 2,
        oom_kills: 3,
        left: 4,
    })
}

#[test]
fn every_line_of_a_container_survives_its_log() {
    let start = Line::Started { pid: 7, time: -1 };
    let ends = ends().into_iter().flat_map(|how| {
        let starts = [None, Some(5)].into_iter();
        starts.map(move |started| line_of(how.clone(), started))
    });
    for line in ends.chain([start]) {
        let bytes = line.encode(MARK);
        let (last, text) = bytes.split_last().unwrap();
        assert_eq!(*last, b'\n');
        // The needle begins with the only control character.
        let plain = text[1..].iter().all(|byte| matches!(byte, b' '..=b'~'));
        assert!(plain, "{}", bytes.escape_ascii());
        let mut found = behind_needle(&bytes).to_vec();
        assert_eq!(Line::parse(&found), Ok(line.clone()));
        found.extend(b"what comes behind");
        assert_eq!(Line::parse(&found), Ok(line));
    }
}

#[test]
fn the_lines_of_a_container_are_as_they_are_told() {
    let start = Line::Started { pid: 7, time: 8 }.encode(MARK);
    let wanted = format!("\x1e{MARK} hybrid-runner started pid=7 time=8\n");
    assert_eq!(String::from_utf8(start).unwrap(), wanted);
    let failure = SpawnFailure {
        step: Step::Program,
        errno: 2,
        program: b"a b%\n=\xFF".to_vec(),
    };
    let end = line_of(How::SpawnFailed(failure), None).encode(MARK);
    let wanted = format!(
        "\x1e{MARK} hybrid-runner end how=spawn_failed step=program errno=2 program=a%20b%25%0A=%FF ended=-2 out=1 \
         err=18446744073709551615 masked=2 oom_kills=3 left=4\n"
    );
    assert_eq!(String::from_utf8(end).unwrap(), wanted);
}

#[test]
fn a_line_of_a_newer_helper_is_read() {
    let text = b"end how=exit new=%20 code=3 ended=4 out=5 err=6 newer=\n";
    let Ok(Line::End(end)) = Line::parse(text) else {
        panic!("it is an end");
    };
    assert_eq!((end.how, end.out, end.masked), (How::Exited(3), 5, 0));
}

#[test]
fn a_cut_or_foreign_line_is_an_error() {
    let line = line_of(How::Exited(3), Some(1)).encode(MARK);
    let text = behind_needle(&line);
    for end in 0..text.len() {
        assert_eq!(Line::parse(&text[..end]), Err(TextError::Truncated));
    }
    for (text, error) in [
        ("\n", TextError::NotARecord),
        ("started\n", TextError::NotARecord),
        ("new pid=1\n", TextError::NotARecord),
        ("started pid=7 8\n", TextError::Line(1)),
        ("started pid=7\n", TextError::Missing("time")),
        ("started pid=x time=8\n", TextError::Value("pid")),
        ("end how=new ended=1 out=1 err=1\n", TextError::Value("how")),
        (
            "end how=exit code=1 ended=1 err=1\n",
            TextError::Missing("out"),
        ),
    ] {
        assert_eq!(Line::parse(text.as_bytes()), Err(error), "{text}");
    }
    assert_eq!(Line::parse(b"started \xFF\n"), Err(TextError::NotARecord));
}

#[test]
fn a_signal_stops_within_the_grace_that_was_wanted() {
    for (number, grace) in (34..).zip(GRACES) {
        assert_eq!(stop_signal(grace), number);
        assert_eq!(stop_signal(grace + Duration::from_millis(99)), number);
        assert_eq!(grace_of(number), Some(grace));
    }
    assert_eq!(stop_signal(Duration::from_millis(1)), 34);
    assert_eq!(stop_signal(Duration::from_secs(299)), 56);
    assert_eq!(stop_signal(Duration::MAX), 63);
    for other in [i32::MIN, -1, 0, 15, 33, 64, i32::MAX] {
        assert_eq!(grace_of(other), None, "{other}");
    }
}
