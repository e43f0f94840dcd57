//! What the cluster says in events, where object and pod themselves say nothing: a quota, an admission policy, a volume that is not
//! there, an image that is being pulled.

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;

use super::blame::lines_of;
use super::client::Connected;

/// Which events are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    Warnings,
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
