use super::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

struct Place {
    outer: tempfile::TempDir,
    folder: Folder,
}

impl Place {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("outside"), "outside").unwrap();
        fs::create_dir(outer.path().join("in")).unwrap();
        let folder = Folder::new(outer.path().join("in"), false);
        Self { outer, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.outer.path().join("in").join(name)
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let secret = self.folder.get(&SecretName::new(name))?;
        Ok(secret.value.expose().to_vec())
    }

    fn kind(&self, name: &str) -> ErrorKind {
        self.get(name).unwrap_err().kind()
    }
}

#[test]
fn a_file_comes_back_byte_for_byte() {
    let place = Place::new();
    fs::create_dir(place.path("db")).unwrap();
    for (name, bytes) in [
        ("db/password", &b"hunter2\n"[..]),
        ("empty", b""),
        ("binary", b"\0\xff"),
        ("with space é", b"x"),
    ] {
        fs::write(place.path(name), bytes).unwrap();
        assert_eq!(place.get(&format!("/{name}")).unwrap(), bytes);
    }
}

#[test]
fn trim_takes_line_breaks_at_the_end_away() {
    let place = Place::new();
    fs::write(place.path("a"), "x\ny \r\n\n").unwrap();
    let folder = Folder::new(place.path(""), true);
    let secret = folder.get(&SecretName::new("/a")).unwrap();
    assert_eq!(secret.value.expose(), b"x\ny ");
}

#[test]
fn a_file_in_place_of_the_folder_is_told_how_to_be_read() {
    let place = Place::new();
    fs::write(place.path("a.env"), "A=x").unwrap();
    let folder = Folder::new(place.path("a.env"), false);
    let error = folder.get(&SecretName::new("/A")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("write `dotenv`"), "{error}");
}

#[test]
fn a_kubernetes_mount_is_followed_through_its_rotation() {
    let place = Place::new();
    for (version, value) in [("..1", "old"), ("..2", "new")] {
        fs::create_dir(place.path(version)).unwrap();
        fs::write(place.path(version).join("key"), value).unwrap();
    }
    symlink("..1", place.path("..data")).unwrap();
    symlink("..data/key", place.path("key")).unwrap();
    assert_eq!(place.get("/key").unwrap(), b"old");
    symlink("..2", place.path("..data_tmp")).unwrap();
    fs::rename(place.path("..data_tmp"), place.path("..data")).unwrap();
    assert_eq!(place.get("/key").unwrap(), b"new");
}

#[test]
fn nothing_outside_of_the_folder_is_read() {
    let place = Place::new();
    symlink("../outside", place.path("relative")).unwrap();
    symlink(place.outer.path().join("outside"), place.path("absolute")).unwrap();
    symlink("..", place.path("up")).unwrap();
    for name in ["/relative", "/absolute", "/up/outside", "/up/in/relative"] {
        assert_eq!(place.kind(name), ErrorKind::Denied, "{name}");
    }
    for name in [
        "/../outside",
        "/a/../../outside",
        "//etc/passwd",
        "/.",
        "/a//b",
        "..",
        "/x/",
    ] {
        assert_eq!(place.kind(name), ErrorKind::Invalid, "{name}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let place = Place::new();
    fs::create_dir(place.path("folder")).unwrap();
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mkfifoat(CWD, place.path("fifo"), mode).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let kinds = ["/folder", "/fifo", "/socket"].map(|name| place.kind(name));
        tell.send(kinds).unwrap();
    });
    let kinds = told.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(kinds, Ok([ErrorKind::Invalid; 3]));
}

#[test]
fn a_large_file_is_refused() {
    let place = Place::new();
    let max = usize::try_from(content::MAX_BYTES).unwrap();
    fs::write(place.path("most"), vec![b'x'; max]).unwrap();
    fs::write(place.path("more"), vec![b'x'; max + 1]).unwrap();
    assert_eq!(place.get("/most").unwrap().len(), max);
    assert_eq!(place.kind("/more"), ErrorKind::Invalid);
}

#[test]
fn missing_unreadable_and_unmounted_are_told_apart() {
    let place = Place::new();
    assert_eq!(place.kind("/gone"), ErrorKind::NotFound);
    assert_eq!(place.kind("/gone/too"), ErrorKind::NotFound);
    assert_eq!(
        place.kind(&format!("/{}", "x".repeat(300))),
        ErrorKind::Invalid
    );
    if !rustix::process::geteuid().is_root() {
        fs::write(place.path("closed"), "x").unwrap();
        fs::set_permissions(place.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(place.kind("/closed"), ErrorKind::Denied);
    }
    place.folder.check().unwrap();
    fs::remove_dir_all(place.path("")).unwrap();
    assert_eq!(place.kind("/gone"), ErrorKind::Unavailable);
    assert!(place.folder.check().is_err());
}

#[test]
fn an_unreadable_file_is_denied_in_words() {
    let error = content::failed("file `a`", rustix::io::Errno::ACCESS);
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.message().contains("give it read permission"));
}

proptest::proptest! {
    #[test]
    fn no_name_panics_or_escapes(name in "(/|\\.|\\.\\.|a|up|outside|in|\\PC){0,12}") {
        let place = Place::new();
        symlink("..", place.path("up")).unwrap();
        symlink(place.outer.path(), place.path("a")).unwrap();
        proptest::prop_assert!(place.get(&name).is_err(), "{name:?}");
    }
}
