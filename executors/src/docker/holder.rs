//! Whether somebody who has taken a turn still lives, as far as it can be seen from here.
//!
//! Whoever has a turn holds a socket with a name of its own, which the kernel gives back with the last of its process, and
//! with the future that held it: a name that can be taken again was left behind. Of one on another host, or in another
//! network namespace, that says nothing.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use hybrid_runner_core::processes;

use super::names::random;

/// Holds a turn until it is dropped.
pub(super) struct Holder {
    label: String,
    _socket: UnixDatagram,
}

impl Holder {
    /// `None` where the system has no such names.
    pub(super) fn new() -> Option<Self> {
        let token = random().ok()?;
        Some(Self {
            label: format!("{}/{token}", place()?),
            _socket: bind(&token).ok()?,
        })
    }

    /// Tells others who it is.
    pub(super) fn label(&self) -> &str {
        &self.label
    }
}

/// Whether the holder of this label has surely ended.
pub(super) fn is_dead(label: &str) -> bool {
    let Some((its_place, token)) = label.rsplit_once('/') else {
        return false;
    };
    place().as_deref() == Some(its_place) && bind(token).is_ok()
}

fn bind(token: &str) -> std::io::Result<UnixDatagram> {
    let name = format!("hybrid-runner-turn-{token}");
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Where such names mean the same: one boot of one kernel, and one network namespace.
fn place() -> Option<String> {
    let boot = processes::boot_id().ok()?;
    let network = std::fs::read_link("/proc/self/ns/net").ok()?;
    Some(format!("{boot}/{}", network.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_turn_lives_until_it_lets_go_and_of_others_nothing_is_known() {
        let holder = Holder::new().unwrap();
        let label = holder.label().to_owned();
        assert!(!is_dead(&label));
        drop(holder);
        assert!(is_dead(&label));
        assert!(!is_dead(&format!("elsewhere/{label}")));
        assert!(!is_dead(""));
    }
}
