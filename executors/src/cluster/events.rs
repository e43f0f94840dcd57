//! What the cluster says in events, where object and pod themselves say nothing: a quota, an admission policy, a volume that is not
//! there, an image that is being pulled.

use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use tokio::time::Instant;

use super::blame::lines_of;
use super::client::Connected;

/// Which events are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    Warnings,
}

/// Between two questions of those who wonder: so many times as long as the last took.
const REST: u32 = 20;

/// Lets those who wonder ask in turn, and not often: for each answer the API server reads all events of the namespace, which takes it
/// seconds where it has much to do, and many runs wait just then.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    is_under_way: bool,
    /// When the next may be asked.
    free: Option<Instant>,
}

/// The turn to ask, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pace: &'a Pace,
    since: Instant,
}

impl Pace {
    /// None where somebody else asks, or has just asked: then later.
    pub(crate) fn turn(&self) -> Option<Turn<'_>> {
        let since = Instant::now();
        let mut asked = self.asked();
        if asked.is_under_way || asked.free.is_some_and(|free| since < free) {
            return None;
        }
        asked.is_under_way = true;
        Some(Turn { pace: self, since })
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.pace.asked() = Asked {
            is_under_way: false,
            free: Some(Instant::now() + self.since.elapsed() * REST),
        };
    }
}

/// The last event about what has this uid, in one line. Nothing if there is none, or if we may not look.
pub(crate) async fn last(connected: &Connected, uid: &str, wanted: Wanted) -> Option<String> {
    let mut fields = format!("involvedObject.uid={uid}");
    if wanted == Wanted::Warnings {
        fields.push_str(",type=Warning");
    }
    let wanted = ListParams::default().fields(&fields).limit(50);
    let events = connected.api::<Event>().list(&wanted).await;
    let events = match events {
        Ok(events) => events.items,
        Err(error) => {
            tracing::debug!(%error, "events cannot be looked at");
            return None;
        }
    };
    let time = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or_else(|| event.event_time.as_ref().map(|time| time.0))
    };
    // A setting of the node, said of each pod: the reason of nothing.
    let telling = |event: &Event| event.reason.as_deref() != Some("MissingClusterDNS");
    let last = events.into_iter().filter(telling).max_by_key(time)?;
    let reason = last.reason.unwrap_or_default();
    let message = lines_of(&last.message.unwrap_or_default());
    Some(format!("{reason}: {message}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_wonders_waits_for_a_turn_the_longer_the_slower_the_answers() {
        let pace = Pace::default();
        let turn = pace.turn();
        assert!(turn.is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(pace.turn().is_none(), "two at once");
        drop(turn);
        tokio::time::advance(Duration::from_secs(39)).await;
        assert!(pace.turn().is_none(), "too soon");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pace.turn().is_some());
    }
}
