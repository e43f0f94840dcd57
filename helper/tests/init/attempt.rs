//! A container that was started, seen from outside.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use hybrid_runner_helper::container::{self, End, Line};
use hybrid_runner_helper::payload::{self, Payload};

use crate::common::{PATIENCE, eventually, kill, pids, state_and_parent};
use crate::container::Container;

/// What a pipe holds.
const PIPE: u64 = 64 << 10;

/// What a thread has read so far.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl Heard {
    fn listen(&self, mut pipe: impl Read + Send + 'static) -> Receiver<()> {
        let (sender, ended) = channel();
        let heard = self.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                heard.0.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
            sender.send(())
        });
        ended
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

/// A container that was started once.
pub(crate) struct Attempt {
    /// The program that waits for the first process outside.
    outside: u32,
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildStdout>,
    pub(crate) stderr: Option<ChildStderr>,
    mark: String,
    out: Heard,
    err: Heard,
    ended: Vec<Receiver<()>>,
    exited: Receiver<ExitStatus>,
    init: OnceLock<u32>,
    kept: Option<Container>,
}

impl Attempt {
    pub(crate) fn new(mut child: Child, mark: String) -> Self {
        let (sender, exited) = channel();
        let attempt = Self {
            outside: child.id(),
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            mark,
            out: Heard::default(),
            err: Heard::default(),
            ended: Vec::new(),
            exited,
            init: OnceLock::new(),
            kept: None,
        };
        let (done, over) = channel::<()>();
        let outside = attempt.outside;
        std::thread::spawn(move || {
            // Who waits for it may be gone.
            let _gone = sender.send(child.wait().unwrap());
            drop(done);
        });
        // So that a test that waits for one of its pipes does not wait for ever.
        std::thread::spawn(move || {
            if over.recv_timeout(4 * PATIENCE) == Err(RecvTimeoutError::Timeout) {
                kill_container(outside);
            }
        });
        attempt
    }

    /// Keeps the folders of the container as long as this.
    pub(crate) fn keep(&mut self, container: Container) {
        self.kept = Some(container);
    }

    /// Reads the output from now on.
    pub(crate) fn read_all(&mut self) {
        self.ended
            .extend(self.stdout.take().map(|pipe| self.out.listen(pipe)));
        self.ended
            .extend(self.stderr.take().map(|pipe| self.err.listen(pipe)));
    }

    /// Hands over a payload, and leaves the input open.
    pub(crate) fn give(&mut self, payload: &Payload) {
        self.feed(payload::encode(payload).unwrap().expose());
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Gives more garbage than fits into a pipe: once it is written, the helper reads.
    pub(crate) fn await_reading(&mut self) {
        self.feed(&vec![0; 128 << 10]);
    }

    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// The first process, seen from outside, once it listens to signals.
    pub(crate) fn init(&self) -> u32 {
        *self.init.get_or_init(|| self.find_init())
    }

    fn find_init(&self) -> u32 {
        eventually("the helper runs", || {
            let child = |pid: &u32| {
                state_and_parent(*pid).is_some_and(|(_, parent)| parent == self.outside)
            };
            let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm"));
            pids()
                .filter(child)
                .find(|pid| name(pid).is_ok_and(|name| name == "hr-init\n"))
        })
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(self.init(), signal);
    }

    /// Asks to stop, as the runner does.
    pub(crate) fn stop(&self, grace: Duration) {
        self.signal(&container::stop_signal(grace).to_string());
    }

    /// The exit code, or the signal as a negative number; everything is read then.
    pub(crate) fn exit(&self) -> i32 {
        let status = self
            .exited
            .recv_timeout(PATIENCE)
            .expect("the container ends");
        self.finish_reading();
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }

    /// Waits until what is read has ended.
    pub(crate) fn finish_reading(&self) {
        for ended in &self.ended {
            // Disconnected: it was waited for before.
            let heard = ended.recv_timeout(PATIENCE);
            assert_ne!(heard, Err(RecvTimeoutError::Timeout), "the output ends");
        }
    }

    pub(crate) fn has_exited(&self) -> bool {
        !Path::new(&format!("/proc/{}", self.outside)).exists()
            || state_and_parent(self.outside).is_none_or(|(state, _)| state == "Z")
    }

    /// What the workload wrote to its output, as far as it was read: all but the helper's lines.
    pub(crate) fn out(&self) -> Vec<u8> {
        self.split(&self.raw_out()).0
    }

    pub(crate) fn err(&self) -> Vec<u8> {
        self.split(&self.raw_err()).0
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out()).unwrap()
    }

    pub(crate) fn error_text(&self) -> String {
        String::from_utf8(self.err()).unwrap()
    }

    pub(crate) fn raw_out(&self) -> Vec<u8> {
        self.out.bytes()
    }

    pub(crate) fn raw_err(&self) -> Vec<u8> {
        self.err.bytes()
    }

    /// The helper's lines on each stream.
    pub(crate) fn lines(&self) -> (Vec<Line>, Vec<Line>) {
        (self.split(&self.raw_out()).1, self.split(&self.raw_err()).1)
    }

    fn all_lines(&self) -> Vec<Line> {
        let (out, err) = self.lines();
        [err, out].concat()
    }

    /// How often it said that the workload runs, and the process that it named.
    pub(crate) fn starts(&self) -> Vec<u32> {
        let lines = self.all_lines().into_iter();
        let starts = lines.filter_map(|line| match line {
            Line::Started { pid, .. } => Some(pid),
            _ => None,
        });
        starts.collect()
    }

    /// What was said of the end, if it was.
    pub(crate) fn end_if_any(&self) -> Option<End> {
        let lines = self.all_lines().into_iter();
        let mut ends = lines.filter_map(|line| match line {
            Line::End(end) => Some(end),
            _ => None,
        });
        let end = ends.next();
        assert_eq!(ends.next(), None, "the end is said once");
        end
    }

    pub(crate) fn end(&self) -> End {
        self.end_if_any().expect("the end is said")
    }

    /// Cuts the helper's lines out.
    fn split(&self, mut raw: &[u8]) -> (Vec<u8>, Vec<Line>) {
        let needle = container::needle(&self.mark);
        let (mut output, mut lines) = (Vec::new(), Vec::new());
        // The first byte of a needle is rare; all of it, elsewhere, does not happen.
        while let Some(at) = raw.iter().position(|&byte| byte == needle[0]) {
            let (before, rest) = raw.split_at(at);
            output.extend_from_slice(before);
            if let Some(text) = rest.strip_prefix(&needle[..])
                && let Some(end) = text.iter().position(|&byte| byte == b'\n')
            {
                lines.push(Line::parse(&text[..=end]).unwrap());
                raw = &text[end + 1..];
            } else {
                output.push(rest[0]);
                raw = &rest[1..];
            }
        }
        output.extend_from_slice(raw);
        (output, lines)
    }

    pub(crate) fn wait_for_output(&self, text: &str) {
        eventually(text, || self.text().contains(text).then_some(()));
    }

    /// How many bytes the helper has read and written.
    pub(crate) fn moved(&self) -> (u64, u64) {
        let io = fs::read_to_string(format!("/proc/{}/io", self.init())).unwrap();
        let count = |name| {
            let mut lines = io.lines();
            let value = lines.find_map(|line| line.strip_prefix(name));
            value.unwrap().trim().parse().unwrap()
        };
        (count("rchar:"), count("wchar:"))
    }

    /// Waits until a pipe that nobody reads is full, and the helper does nothing any more.
    pub(crate) fn wait_until_it_is_full(&self) {
        let (mut before, mut since) = (self.moved(), SystemTime::now());
        eventually("nothing moves", || {
            let now = self.moved();
            if now != before {
                (before, since) = (now, SystemTime::now());
            }
            let quiet = since.elapsed().unwrap() > Duration::from_millis(500);
            (now.1 >= PIPE && quiet).then_some(())
        });
    }

    /// The processes of the workload, seen from outside.
    pub(crate) fn living(&self) -> Vec<u32> {
        let mut family = vec![self.init()];
        let mut at = 0;
        while let Some(&parent) = family.get(at) {
            let children = pids().filter(|pid| {
                state_and_parent(*pid).is_some_and(|(state, found)| found == parent && state != "Z")
            });
            family.extend(children.collect::<Vec<_>>());
            at += 1;
        }
        family.split_off(1)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.has_exited() {
            kill_container(self.outside);
        }
    }
}

/// Also what is inside: the signal of a dying parent does not reach a process that has changed its user.
fn kill_container(outside: u32) {
    let parent = |pid: &u32| state_and_parent(*pid).map(|(_, parent)| parent);
    let inside = pids().filter(|pid| parent(pid) == Some(outside));
    for pid in inside.chain([outside]) {
        let pid = pid.to_string();
        drop(Command::new("kill").args(["-KILL", &pid]).status());
    }
}
