//! Programs that do not even keep to the protocol. They answer `hello` first, unless that is what they do wrong.

use std::io::{BufRead as _, Read as _, Write as _};
use std::time::Duration;

/// What a hostile program does until it is killed, or ends.
pub(crate) fn of(name: &str) -> Option<fn()> {
    Some(match name {
        "floods" => floods,
        "floods-messages" => floods_messages,
        "floods-stderr" => floods_stderr,
        "endless-line" => endless_line,
        "deep" => deep,
        "deaf" => deaf,
        "mute" => mute,
        "closes" => closes,
        "newer" => newer,
        "not-text" => not_text,
        _ => return None,
    })
}

/// Ends the process: nothing of it is to go on.
fn leave() -> ! {
    #[expect(
        clippy::exit,
        reason = "a program that is wrong on purpose ends where it stands"
    )]
    std::process::exit(0)
}

/// Writes for ever; ends when nobody reads any more.
fn for_ever(bytes: &[u8]) -> ! {
    let mut out = std::io::stdout().lock();
    loop {
        if out.write_all(bytes).is_err() {
            leave();
        }
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        leave();
    }
}

/// Reads the first request and answers it as it should be.
fn greet() {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).is_err() {
        leave();
    }
    say(
        r#"{"jsonrpc":"2.0","id":1,"result":{"version":"v1-preview","software":"hostile","capabilities":{"logs":"until_removed","streams":false,"resources":false,"images":false,"contained":false}}}"#,
    );
}

/// Waits for whatever is asked next.
fn be_asked() {
    let mut line = String::new();
    drop(std::io::stdin().lock().read_line(&mut line));
}

fn floods() {
    greet();
    for_ever("no message at all\n".repeat(4000).as_bytes());
}

fn floods_messages() {
    greet();
    let message =
        "{\"jsonrpc\":\"2.0\",\"method\":\"stream.data\",\"params\":{\"stream\":9,\"item\":{}}}\n";
    for_ever(message.repeat(1000).as_bytes());
}

fn floods_stderr() {
    greet();
    let line = "a line of no importance\n".repeat(4000);
    let mut out = std::io::stderr().lock();
    for _ in 0..4000 {
        if out.write_all(line.as_bytes()).is_err() {
            leave();
        }
    }
    drop(out);
    answer_all();
}

/// Answers every request with nothing.
fn answer_all() -> ! {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        if message.get("method").is_some() && message.get("id").is_some() {
            say(&format!(
                r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#,
                message["id"]
            ));
        }
    }
    leave()
}

/// One line of 1 GB.
fn endless_line() {
    greet();
    be_asked();
    let mut out = std::io::stdout().lock();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..1024 {
        if out.write_all(&piece).is_err() {
            leave();
        }
    }
    leave();
}

/// Nests 10,000 deep, in every place, and goes on answering.
fn deep() {
    greet();
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let message: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        say(&format!(
            r#"{{"jsonrpc":"2.0","method":"$/progress","params":{deep}}}"#
        ));
        say(&deep);
        say(&format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{deep}}}"#,
            message["id"]
        ));
    }
    leave();
}

/// Never reads again.
fn deaf() {
    greet();
    wait();
}

/// Reads, and never answers anything.
fn mute() {
    let mut rest = Vec::new();
    drop(std::io::stdin().lock().read_to_end(&mut rest));
    leave();
}

fn closes() {
    greet();
    be_asked();
    leave();
}

fn newer() {
    be_asked();
    say(r#"{"jsonrpc":"2.0","id":1,"result":{"version":"v9","software":"of tomorrow"}}"#);
    wait();
}

fn not_text() {
    greet();
    for_ever(b"\xff\xfe\x00\x80\n");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program that hangs on purpose, and has nothing else to do"
)]
fn wait() -> ! {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}
