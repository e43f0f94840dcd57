//! Streams that go on in the next process when a newer program takes over: that is no trouble of the run's.

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};

use super::life::Life;
use crate::error::Result;

/// A stream, and the process behind it.
pub(super) struct Opened<T> {
    pub(super) life: Life,
    pub(super) items: BoxStream<'static, Result<T>>,
}

/// Opens a stream behind the item that came last, and again each time that its process was replaced.
pub(super) fn renewed<T, Open>(open: Open) -> BoxStream<'static, Result<T>>
where
    T: Clone + Send + 'static,
    Open: Fn(Option<T>) -> BoxFuture<'static, Result<Opened<T>>> + Send + 'static,
{
    let first = Renewed {
        open,
        opened: None,
        last: None,
    };
    let next = |renewed: Option<Renewed<T, Open>>| async {
        let mut renewed = renewed?;
        match renewed.next().await? {
            Ok(item) => Some((Ok(item), Some(renewed))),
            Err(error) => Some((Err(error), None)),
        }
    };
    stream::unfold(Some(first), next).boxed()
}

struct Renewed<T, Open> {
    open: Open,
    opened: Option<Opened<T>>,
    last: Option<T>,
}

impl<T, Open> Renewed<T, Open>
where
    T: Clone,
    Open: Fn(Option<T>) -> BoxFuture<'static, Result<Opened<T>>>,
{
    async fn next(&mut self) -> Option<Result<T>> {
        loop {
            let opened = match &mut self.opened {
                Some(opened) => opened,
                None => match (self.open)(self.last.clone()).await {
                    Ok(opened) => self.opened.insert(opened),
                    Err(error) => return Some(Err(error)),
                },
            };
            match opened.items.next().await? {
                Ok(item) => {
                    self.last = Some(item.clone());
                    return Some(Ok(item));
                }
                Err(_) if opened.life.was_replaced() => self.opened = None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
