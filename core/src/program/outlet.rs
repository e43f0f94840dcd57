//! The stdout of a program that may outlive us, as a named pipe, and a mark in its environment: whoever comes after us sees whether
//! the program, or a child of it, is still at work.
//!
//! The writing end is locked when it is made. The lock belongs to the open file, which all processes share that have inherited
//! it, so it lasts until the last of them is gone. A pipe it is all the same: nothing that passes through it is on disk, and
//! without a reader the program is told so (`EPIPE`) as by any other. The program leads a session of its own, by which a child with
//! another stdout (`id=$(sbatch …)`) is known; its number stands in a file beside the pipe, with what tells whether that is still the same
//! one. Who is to live on, and not be waited for, leaves both: another stdout, a session of its own.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use hybrid_runner_helper::session;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::{Duration, Instant, sleep};

use crate::processes::{self, Stat};

/// The variable with the mark: the name of the pipe.
const MARK: &str = "HYBRID_RUNNER_PROCESS";
/// The ending of the file with the session.
const SESSION: &str = ".session";
/// Begins the name of a pipe that is being made.
const FRESH: &str = ".";
/// How long a process takes to be gone that was just killed.
const MOMENT: Duration = Duration::from_millis(300);
/// Between two looks. The system has no event for this.
const TRY: Duration = Duration::from_millis(30);

/// A named pipe with both of its ends.
#[derive(Debug)]
pub struct Outlet {
    path: PathBuf,
    reader: Receiver,
    writer: File,
}

/// A program with such a stdout.
#[derive(Debug)]
pub(crate) struct Placed {
    /// What it prints.
    pub(crate) stdout: Receiver,
    /// The pipe.
    pub(crate) path: PathBuf,
}

impl Outlet {
    /// Makes a pipe of this name, in the place of one that was there.
    ///
    /// # Errors
    ///
    /// A file system without named pipes or locks, or a full one.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn make(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        std::fs::create_dir_all(folder)?;
        remove(path)?;
        // Nobody may see it before it is locked.
        let mut fresh = std::ffi::OsString::from(FRESH);
        fresh.push(name);
        let fresh = folder.join(fresh);
        remove(&fresh)?;
        mknodat(CWD, &fresh, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let reader = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = File::from(open(&fresh, reader, Mode::empty())?);
        // There is a reader, so this does not wait for one.
        let writer = File::from(open(
            &fresh,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        writer.try_lock()?;
        Session::reserve(path)?;
        std::fs::rename(&fresh, path)?;
        Ok(Self {
            path: path.to_owned(),
            reader: Receiver::from_file(reader)?,
            writer,
        })
    }

    /// Starts a program with it, in a session of its own.
    pub(crate) fn spawn(self, mut command: Command) -> io::Result<(Child, Placed)> {
        if is_text_for_nobody(Path::new(command.as_std().get_program())) {
            return Err(Errno::NOEXEC.into());
        }
        let name = self.path.file_name().unwrap_or_default();
        command.env(MARK, name).stdout(Stdio::from(self.writer));
        session::own(command.as_std_mut());
        let child = command.spawn()?;
        // Our copy of what it writes to: the end would never come.
        drop(command);
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(led) = id.and_then(Session::led_by)
            && let Err(error) = led.write(&self.path)
        {
            tracing::debug!(%error, "the session is not noted: all that have the mark count");
        }
        let placed = Placed {
            stdout: self.reader,
            path: self.path,
        };
        Ok((child, placed))
    }
}

/// A text that does not say what runs it. The system does not run it; the C library, through which a program in a session of its own is
/// started, would guess a shell.
fn is_text_for_nobody(program: &Path) -> bool {
    let is_path = program.as_os_str().as_encoded_bytes().contains(&b'/');
    if !is_path || !program.is_file() {
        return false;
    }
    let mut begin = Vec::new();
    let read = File::open(program).and_then(|file| file.take(64).read_to_end(&mut begin));
    let is_text = |byte: &u8| *byte >= b' ' && *byte != 0x7f || byte.is_ascii_whitespace();
    read.is_ok() && !begin.starts_with(b"#!") && begin.iter().all(is_text)
}

/// The session of a program, and what tells it from a later one of the same number.
#[derive(Debug, PartialEq, Eq)]
struct Session {
    leader: i32,
    /// When that began.
    ticks: u64,
    boot: String,
    /// Where its number means it, and since when: the system gives the names of namespaces again, too.
    namespace: String,
}

/// Room for what is noted of it, taken before there is anything to note: a full disk is told while nothing is started yet.
const ROOM: usize = 160;

impl Session {
    fn led_by(leader: i32) -> Option<Self> {
        Some(Self {
            leader,
            ticks: Stat::read(leader)?.ticks,
            boot: boot(),
            namespace: namespace(),
        })
    }

    fn write(&self, pipe: &Path) -> io::Result<()> {
        let Self {
            leader,
            ticks,
            boot,
            namespace,
        } = self;
        let text = format!("{leader} {ticks} {boot} {namespace}\n");
        let file = OpenOptions::new().write(true).open(session_file(pipe))?;
        file.write_all_at(text.as_bytes(), 0)
    }

    /// Nothing is noted yet.
    fn reserve(pipe: &Path) -> io::Result<()> {
        std::fs::write(session_file(pipe), [b' '; ROOM])
    }

    /// That of a pipe; none if it was not written, or not whole.
    fn read(pipe: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(session_file(pipe)).ok()?;
        let (line, _) = text.split_once('\n')?;
        let mut words = line.split(' ');
        Some(Self {
            leader: words.next()?.parse().ok()?,
            ticks: words.next()?.parse().ok()?,
            boot: words.next()?.to_owned(),
            namespace: words.next()?.to_owned(),
        })
    }

    /// Whether another process has the leader's number by now. Then its session is another one, too: a number is not given again
    /// while a session has it.
    fn is_another(&self) -> bool {
        let now = Stat::read(self.leader).filter(|stat| !stat.is_dead);
        now.is_some_and(|stat| stat.ticks != self.ticks)
    }
}

fn boot() -> String {
    processes::boot_id().unwrap_or_default()
}

fn namespace() -> String {
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let first = Stat::read(1).map_or(0, |first| first.ticks);
    format!("{}@{first}", namespace.to_string_lossy())
}

/// Processes that are still at work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders(Vec<Process>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    id: i32,
    /// When it began.
    ticks: u64,
    name: String,
}

impl fmt::Display for Holders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("a process that cannot be seen from here");
        }
        for (at, process) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}process {} (`{}`)", process.id, process.name)?;
        }
        Ok(())
    }
}

impl Holders {
    /// Kills them, and nobody who has one of their numbers by now.
    pub fn kill(&self) {
        for process in &self.0 {
            let Some(id) = Pid::from_raw(process.id) else {
                continue;
            };
            // That it has ended meanwhile is fine.
            let Ok(held) = pidfd_open(id, PidfdFlags::empty()) else {
                continue;
            };
            if Stat::read(process.id).is_some_and(|stat| stat.ticks == process.ticks) {
                pidfd_send_signal(held, Signal::KILL).ok();
            }
        }
    }

    /// Of these the one that was started, and not what it has started; all, if that one is gone.
    #[must_use]
    pub fn leader(mut self, path: &Path) -> Self {
        let led = Session::read(path);
        let led = led.map(|led| (led.leader, led.ticks));
        let leads = |process: &Process| Some((process.id, process.ticks)) == led;
        if self.0.iter().any(leads) {
            self.0.retain(leads);
        }
        self
    }
}

/// Who still has the pipe of this name as its stdout, or is a child of who had it. A pipe that nobody has is put away.
///
/// # Errors
///
/// The pipe cannot be looked at.
pub fn holders(path: &Path) -> io::Result<Option<Holders>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut is_locked = false;
    if file.metadata()?.file_type().is_fifo()
        && let Err(error) = file.try_lock()
    {
        match error {
            TryLockError::WouldBlock => is_locked = true,
            TryLockError::Error(error) => return Err(error),
        }
    }
    drop(file);
    let left = left(path, is_locked)?;
    if is_locked || !left.is_empty() {
        return Ok(Some(Holders(left)));
    }
    remove(path)?;
    Ok(None)
}

/// The same, after a moment in which one that was just killed lets go of it.
///
/// # Errors
///
/// As `look`.
pub async fn after_a_moment<T>(
    look: impl Fn() -> io::Result<Option<T>> + Send,
) -> io::Result<Option<T>> {
    let deadline = Instant::now() + MOMENT;
    loop {
        let Some(held) = look()? else { return Ok(None) };
        if Instant::now() >= deadline {
            return Ok(Some(held));
        }
        sleep(TRY).await;
    }
}

/// Who has any of the pipes in a folder, apart from one, by pipe. Those that nobody has are put away.
///
/// # Errors
///
/// The folder, or a pipe in it, cannot be looked at.
pub fn any_holders(
    folder: &Path,
    but: Option<&Path>,
) -> io::Result<Option<Vec<(PathBuf, Holders)>>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_pipe = !name.starts_with(FRESH) && !name.ends_with(SESSION);
        if is_pipe
            && Some(&*path) != but
            && let Some(held) = holders(&path)?
        {
            all.push((path, held));
        }
    }
    Ok(Some(all).filter(|all| !all.is_empty()))
}

/// Forgets a pipe, whoever has it.
///
/// # Errors
///
/// It cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    for path in [path, &session_file(path)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn session_file(path: &Path) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(SESSION);
    path.into()
}

/// The processes that have the pipe, or are of the program's session; all that have the mark, if that is not known here. A mark
/// can be written over, and that of another user's process cannot be read.
fn left(path: &Path, is_locked: bool) -> io::Result<Vec<Process>> {
    let led = Session::read(path);
    if led.as_ref().is_some_and(|led| led.boot != boot()) {
        return Ok(Vec::new());
    }
    let led = led.filter(|led| led.namespace == namespace());
    let session = led.as_ref().filter(|led| !led.is_another());
    let session = session.map(|led| led.leader);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mark = format!("{MARK}={name}");
    let mut found = Vec::new();
    for id in processes::all()? {
        // Processes end while they are looked at.
        let Some(stat) = Stat::read(id).filter(|stat| !stat.is_dead) else {
            continue;
        };
        let is_left = Some(stat.session) == session
            || (is_locked || led.is_none())
                && processes::has_variable(id, mark.as_bytes())
                && (led.is_none() || has_pipe(id, path));
        if is_left {
            let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            found.push(Process {
                id,
                ticks: stat.ticks,
                name: name.trim().to_owned(),
            });
        }
    }
    Ok(found)
}

/// Whether a process has the pipe open.
fn has_pipe(process: i32, path: &Path) -> bool {
    let Ok(pipe) = std::fs::metadata(path) else {
        return false;
    };
    let files = std::fs::read_dir(format!("/proc/{process}/fd"));
    let files = files.into_iter().flatten().flatten();
    let mut files = files.filter_map(|file| std::fs::metadata(file.path()).ok());
    files.any(|file| (file.dev(), file.ino()) == (pipe.dev(), pipe.ino()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// The mark is made of it, and all tests are of one session.
    fn name() -> String {
        format!("{}.1", uuid::Uuid::now_v7())
    }

    fn sh(path: &Path, script: &str, argument: &Path) -> (Child, Placed) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).arg(argument);
        Outlet::make(path).unwrap().spawn(command).unwrap()
    }

    async fn until_free(path: &Path) {
        let free = async {
            while holders(path).unwrap().is_some() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, free).await.expect("it is let go of");
    }

    /// A program that was killed, whose child goes on until it is let: whether it is seen, and its job is not.
    async fn a_child_is_seen(child: &str) {
        let folder = tempfile::tempdir().unwrap();
        let (path, go) = (
            folder.path().join("out").join(name()),
            folder.path().join("go"),
        );
        mknodat(CWD, &go, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let script = format!("setsid sleep 60 >/dev/null & echo $!; {child}");
        let (mut program, placed) = sh(&path, &script, &go);
        let mut stdout = BufReader::new(placed.stdout);
        let mut job = String::new();
        timeout(LIMIT, stdout.read_line(&mut job))
            .await
            .unwrap()
            .unwrap();
        drop(stdout);
        // The job is one of them until it has a session of its own.
        let job = job.trim().to_owned();
        let begun = async {
            while !holders(&path).unwrap().is_some_and(|held| {
                let held = held.to_string();
                held.contains("(`cat`)") && !held.contains(&format!("process {job} "))
            }) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, begun).await.expect("the child begins");
        program.kill().await.unwrap();
        let held = holders(&path).unwrap().expect("the child is at work");
        assert!(held.to_string().contains("(`cat`)"), "{held}");
        let any = any_holders(path.parent().unwrap(), None).unwrap();
        assert_eq!(any, Some(vec![(path.clone(), held)]));
        // It opens, and ends.
        drop(std::fs::OpenOptions::new().write(true).open(&go).unwrap());
        until_free(&path).await;
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            0,
            "it is put away"
        );
        let job = Pid::from_raw(job.parse().unwrap()).unwrap();
        rustix::process::kill_process(job, Signal::KILL).expect("the job lives");
    }

    #[tokio::test]
    async fn a_child_is_seen_that_has_inherited_the_pipe() {
        a_child_is_seen("cat \"$0\"; exit").await;
    }

    #[tokio::test]
    async fn a_child_is_seen_whose_output_is_captured() {
        a_child_is_seen("id=$(cat \"$0\"); echo $id").await;
        a_child_is_seen("cat \"$0\" >/dev/null 2>&1; exit").await;
        // One that makes a process group of its own, and one that has lost the mark.
        a_child_is_seen("id=$(timeout 60 cat \"$0\"); echo $id").await;
        a_child_is_seen("id=$(env -i cat \"$0\"); echo $id").await;
        a_child_is_seen("id=$(env -i timeout 60 cat \"$0\"); echo $id").await;
    }

    /// As in `docker exec`: the session has no number there.
    #[tokio::test]
    async fn it_is_the_same_in_a_namespace_that_does_not_see_our_session() {
        const ROOT: &[&str] = &["--pid", "--fork", "--mount-proc"];
        const USER: &[&str] = &[
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
        ];
        let can = |arguments: &&[&str]| {
            let probe = std::process::Command::new("unshare")
                .args(*arguments)
                .arg("true")
                .output();
            probe.is_ok_and(|probe| probe.status.success())
        };
        let Some(arguments) = [ROOT, USER].into_iter().find(can) else {
            return crate::testing::skipped("no namespaces of processes here");
        };
        let mut within = Command::new("unshare");
        within.args(arguments).kill_on_drop(true);
        let ours = format!("{}::a_child_is_seen", module_path!());
        let (_, ours) = ours.split_once("::").unwrap();
        within.arg(std::env::current_exe().unwrap()).arg(ours);
        let output = timeout(4 * LIMIT, within.output()).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("2 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[tokio::test]
    async fn another_process_of_its_number_is_not_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name());
        let mut stranger = Command::new("sleep");
        stranger.arg("60").kill_on_drop(true);
        session::own(stranger.as_std_mut());
        let mut stranger = stranger.spawn().unwrap();
        let id = i32::try_from(stranger.id().unwrap()).unwrap();
        let now = Session::led_by(id).unwrap();
        for (ticks, boot) in [(now.ticks - 1, now.boot.as_str()), (now.ticks, "another")] {
            drop(Outlet::make(&path).unwrap());
            let before = Session {
                leader: id,
                ticks,
                boot: boot.to_owned(),
                namespace: now.namespace.clone(),
            };
            before.write(&path).unwrap();
            assert_eq!(Session::read(&path), Some(before));
            assert_eq!(holders(&path).unwrap(), None);
        }
        // And this is how it would be found.
        drop(Outlet::make(&path).unwrap());
        now.write(&path).unwrap();
        let held = holders(&path).unwrap().expect("the session lives");
        let mut later = held.clone();
        later.0[0].ticks -= 1;
        later.kill();
        assert_eq!(held.clone().leader(&path), held);
        assert_eq!(stranger.try_wait().unwrap(), None, "nobody else is killed");
        held.kill();
        timeout(LIMIT, stranger.wait()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_is_at_work_can_be_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name());
        let (mut program, _placed) = sh(&path, "sleep 60; exit", &path);
        let ended = async {
            // What is killed may have started another just before.
            while let Some(held) = after_a_moment(|| holders(&path)).await.unwrap() {
                held.kill();
            }
            program.wait().await.unwrap()
        };
        assert!(!timeout(LIMIT, ended).await.unwrap().success());
    }

    #[tokio::test]
    async fn it_is_a_pipe_like_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name());
        let (mut program, mut placed) = sh(&path, "head -c 300000 /dev/zero", &path);
        let mut read = Vec::new();
        let whole = placed.stdout.read_to_end(&mut read);
        timeout(LIMIT, whole).await.unwrap().unwrap();
        assert_eq!(read.len(), 300_000);
        assert!(program.wait().await.unwrap().success());
        assert_eq!(holders(&path).unwrap(), None);
        assert_eq!(holders(&folder.path().join("none")).unwrap(), None);
        std::fs::write(&path, "no pipe").unwrap();
        assert_eq!(
            holders(&path).unwrap(),
            None,
            "another file is nobody's stdout"
        );
    }
}
