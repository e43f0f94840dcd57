//! What the cluster says of an object in events, where the object itself says nothing: a quota, an admission policy.

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;

use super::blame::lines_of;
use super::client::Connected;

/// The last warning about the object with this uid. Nothing if there is none, or if we may not look.
pub(crate) async fn last_warning(connected: &Connected, uid: &str) -> Option<String> {
    let wanted = ListParams::default()
        .fields(&format!("involvedObject.uid={uid},type=Warning"))
        .limit(50);
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
    let last = events.into_iter().max_by_key(time)?;
    let reason = last.reason.unwrap_or_default();
    let message = lines_of(&last.message.unwrap_or_default());
    Some(format!("{reason}: {message}"))
}
