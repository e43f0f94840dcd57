//! Runs the helper as an engine would: in a root that holds nothing but what the image has, with a read-only volume at
//! `/.hr` and a memory file system in it.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use hybrid_runner_helper::container;
use hybrid_runner_helper::payload::Payload;
use tempfile::TempDir;

use crate::attempt::Attempt;
use crate::common::{eventually, script};

/// The program as it is shipped: static, so that it runs where nothing else is.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(build);

fn build() -> PathBuf {
    let libc = if cfg!(target_env = "musl") {
        "musl"
    } else {
        "gnu"
    };
    let target = format!("{}-unknown-linux-{libc}", std::env::consts::ARCH);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helper");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--offline", "--profile", "helper"])
        .args(["--bin", "hybrid-runner-helper", "--target", &target])
        .args([
            "--manifest-path",
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        ])
        .arg("--target-dir")
        .arg(&folder)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Ctarget-feature=+crt-static\x1f-Crelocation-model=static",
        )
        .status()
        .unwrap();
    assert!(status.success(), "the static helper can be built");
    folder.join(target).join("helper/hybrid-runner-helper")
}

/// What an engine knows of a container.
#[derive(Default)]
pub(crate) struct Image {
    /// Nothing is in it: no shell, no C library, no program.
    pub(crate) empty: bool,
    pub(crate) user: Option<u32>,
    pub(crate) read_only: bool,
    pub(crate) workdir: Option<&'static str>,
    pub(crate) env: Vec<&'static str>,
    /// A control group, and where it is seen inside.
    pub(crate) group: Option<(PathBuf, &'static str)>,
}

/// A container that was created and not started.
pub(crate) struct Container {
    pub(crate) root: TempDir,
    pub(crate) mark: String,
    image: Image,
    volume: TempDir,
}

/// Becomes the helper: `root volume read-only group where command…`.
const SETUP: &str = r#"
set -e
root=$1 volume=$2 read_only=$3 group=$4 where=$5; shift 5
if [ "$read_only" ]; then mount --bind "$root" "$root"; fi
mount --bind "$volume" "$root/.hr"
mount -t tmpfs -o mode=1777 private "$root/.hr/private"
mount -o remount,bind,ro "$root/.hr"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for folder in "$root"/*; do
  name=${folder##*/}
  case $name in bin | sbin | lib* | usr) [ -L "$folder" ] || mount --rbind "/$name" "$folder" ;; esac
done
if [ "$group" ]; then mount --bind "$group" "$root$where"; echo $$ > "$group/cgroup.procs"; fi
if [ "$read_only" ]; then mount -o remount,bind,ro "$root"; fi
exec env -i "$@"
"#;

impl Container {
    /// Creates it; `None` where that cannot be done.
    pub(crate) fn create(image: Image) -> Option<Self> {
        if !namespaces_can_be_made() {
            skipped("no namespaces can be made here (needs root)");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let volume = tempfile::tempdir().unwrap();
        for folder in ["proc", "dev", ".hr", "work"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        if !image.empty {
            put_system_into(root.path());
        }
        if let Some((_, place)) = &image.group {
            fs::create_dir_all(root.path().join(&place[1..])).unwrap();
        }
        // By another process: one that this one forks meanwhile would hold the file open, and it could not be executed.
        let copied = Command::new("cp")
            .args([&*PROGRAM, &volume.path().join("init")])
            .status();
        assert!(copied.unwrap().success());
        fs::create_dir(volume.path().join("private")).unwrap();
        for folder in [&root, &volume] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self {
            root,
            mark: new_mark(),
            image,
            volume,
        })
    }

    /// Starts it, and leaves its output unread.
    pub(crate) fn start_unread(&self) -> Attempt {
        let image = &self.image;
        let (group, place) = match &image.group {
            Some((group, place)) => (group.as_path(), *place),
            None => (Path::new(""), ""),
        };
        let mut command = Command::new("unshare");
        command
            .args(["--fork", "--kill-child", "--pid", "--mount"])
            .args(["sh", "-c", SETUP, "sh"])
            .args([self.root.path(), self.volume.path()])
            .arg(if image.read_only { "ro" } else { "" })
            .arg(group)
            .arg(place)
            .args(&image.env)
            .arg(chroot());
        if let Some(user) = image.user {
            command.arg(format!("--userspec={user}:{user}"));
        }
        command.arg(self.root.path());
        if let Some(workdir) = image.workdir {
            command.args(["/usr/bin/env", "-C", workdir]);
        }
        let child = command
            .args([container::INIT, container::ROLE, &self.mark])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Attempt::new(child, self.mark.clone())
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Attempt {
        let mut attempt = self.start_unread();
        attempt.read_all();
        attempt
    }

    /// Starts it, and hands over a payload.
    pub(crate) fn run(&self, payload: &Payload) -> Attempt {
        let mut attempt = self.start();
        attempt.give(payload);
        attempt
    }

    /// Where a file at `/work` in the container lies outside.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.root.path().join("work").join(name)
    }

    /// Writes a file that is seen at `/work` in the container.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut file = File::create(self.work(name)).unwrap();
        file.write_all(bytes).unwrap();
    }

    /// Waits until the workload has made this file.
    pub(crate) fn wait_for_file(&self, name: &str) {
        let path = self.work(name);
        eventually(name, || path.exists().then_some(()));
    }
}

/// Holds up a workload that reads a line from `/work/go`.
pub(crate) struct Gate(File);

impl Gate {
    pub(crate) fn create(container: &Container) -> Self {
        let path = container.work("go");
        let made = Command::new("mkfifo").arg("-m644").arg(&path).status();
        assert!(made.unwrap().success());
        // Also to read, so that opening it waits for nobody.
        let file = File::options().read(true).write(true).open(path);
        Self(file.unwrap())
    }

    pub(crate) fn open(&mut self) {
        self.0.write_all(b"go\n").unwrap();
    }
}

/// Runs a payload in a container of a whole system; `None` where there can be none.
pub(crate) fn run(payload: &Payload) -> Option<Attempt> {
    let container = Container::create(Image::default())?;
    let mut attempt = container.run(payload);
    attempt.keep(container);
    Some(attempt)
}

/// A mark that no other container of these tests has.
fn new_mark() -> String {
    static MARKS: AtomicU32 = AtomicU32::new(0);
    let number = MARKS.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}{number:016x}", std::process::id())
}

fn namespaces_can_be_made() -> bool {
    let tried = Command::new("unshare")
        .args(["--fork", "--pid", "--mount", "--mount-proc", "true"])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}

fn chroot() -> &'static str {
    let places = ["/usr/sbin/chroot", "/usr/bin/chroot", "/sbin/chroot"];
    let found = places.into_iter().find(|place| Path::new(place).exists());
    found.expect("a system has `chroot`")
}

/// The programs of this system, as links or as folders to mount them on.
fn put_system_into(root: &Path) {
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"] {
        let (here, there) = (Path::new("/").join(name), root.join(name));
        if let Ok(target) = fs::read_link(&here) {
            std::os::unix::fs::symlink(target, there).unwrap();
        } else if here.is_dir() {
            fs::create_dir(there).unwrap();
        }
    }
}

/// Says that something could not be tested here. With `CI=true` that is a failure.
#[expect(clippy::print_stdout, reason = "for people and for scripts/test")]
pub(crate) fn skipped(why: &str) {
    println!("skipped: {why}");
    if let Some(path) = std::env::var_os("HYBRID_RUNNER_SKIPS") {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        writeln!(file, "{name}: {why}").unwrap();
    }
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "skipped, which CI does not allow: {why}");
}

/// A payload that runs a shell script in the environment of the image.
pub(crate) fn inside(text: &str) -> Payload {
    Payload {
        env: Vec::new(),
        inherit: true,
        ..script(text)
    }
}
