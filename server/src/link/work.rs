//! One connected runner: what to send it, in what order.
//!
//! Level-triggered: at the beginning both sides' runs are compared, and whatever differs is put right by
//! one job a run; and now and then again, since a runner may find runs in a backend that was away when it came. Later orders (a new run, a stop) come from requests; queued runs are claimed from the
//! store whenever there is a place. Places are handed out in the order of asking, so that a stream of new
//! runs cannot starve the queue.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Executor as _, Result, RunSpec, fault};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};
use tracing::{error, info, warn};

use super::job::{Begin, Context, Job, settle};
use super::retry::Backoff;
use super::roster::{Order, Seat};
use crate::app::App;
use crate::store::reconcile::{self, Plan};
use crate::store::runs::{self, Run};

/// Queued runs that are claimed in one write.
const CLAIM: usize = 32;

/// A backend that was away is there again by then, or it is compared again after the next pause.
const COMPARE_SOON: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 60 });
const COMPARE_AGAIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 600 });

/// Works for one connected runner until it leaves or is asked to. No task of it is left when this returns.
pub(super) async fn work(
    app: &Arc<App>,
    seat: &Arc<Seat>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut worker = Worker::new(app, seat);
    let mut revoked = app.access.revocations();
    tokio::select! {
        () = worker.run(&mut orders) => {}
        () = seat.session.closed() => {}
        () = seat.leave.cancelled() => {}
        () = app.shutdown.cancelled() => {}
        () = async {
            while app.access.is_valid(&seat.token) {
                // The sender lives in `app`.
                let _changed = revoked.changed().await;
            }
        } => info!(runner = %seat.agent, "its token was revoked"),
    }
    worker.jobs.shutdown().await;
    worker.give_back(&mut orders).await;
}

type Claimed = (Vec<(Run, RunSpec)>, Vec<OwnedSemaphorePermit>);

struct Worker {
    context: Context,
    jobs: JoinSet<i64>,
    /// The runs that have a job, and how to ask it to stop its run.
    running: HashMap<i64, watch::Sender<Option<Period>>>,
    /// Sent once, and to be delivered again when there is a place.
    waiting: VecDeque<(Run, RunSpec)>,
    /// Stops of runs that have no job yet.
    stops: HashMap<i64, Period>,
    /// Something may be queued in the store.
    backlog: bool,
    claiming: Option<BoxFuture<'static, Result<Claimed>>>,
    /// Runs that are being removed there without a job of theirs.
    settling: HashSet<i64>,
    comparing: Option<BoxFuture<'static, Result<Plan>>>,
}

impl Worker {
    fn new(app: &Arc<App>, seat: &Arc<Seat>) -> Self {
        Self {
            context: Context::new(app, seat),
            jobs: JoinSet::new(),
            running: HashMap::new(),
            waiting: VecDeque::new(),
            stops: HashMap::new(),
            backlog: true,
            claiming: None,
            settling: HashSet::new(),
            comparing: None,
        }
    }

    async fn run(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let plan = plan(&self.context).await;
        self.carry_out(plan);
        let seat = Arc::clone(&self.context.seat);
        let mut again = interval_at(Instant::now() + COMPARE_SOON, COMPARE_AGAIN);
        loop {
            // The places of runs that nobody can follow any more are not free.
            let is_open = self.claiming.is_none() && !seat.session.is_closed();
            let wants_place = is_open && (self.backlog || !self.waiting.is_empty());
            tokio::select! {
                Some(order) = orders.recv() => self.obey(order),
                Some(done) = self.jobs.join_next() => match done {
                    Ok(run) => {
                        self.running.remove(&run);
                        self.settling.remove(&run);
                    }
                    Err(error) => {
                        // A bug of ours. The run is not lost: the next session begins with a comparison.
                        error!(runner = %seat.agent, %error, "a job failed; connecting anew");
                        return;
                    }
                },
                () = seat.queued.notified() => self.backlog = true,
                Ok(place) = Arc::clone(&seat.slots).acquire_owned(), if wants_place => self.fill(place),
                claimed = async { self.claiming.as_mut().expect("checked").await }, if self.claiming.is_some() => {
                    self.claiming = None;
                    self.claimed(claimed);
                }
                _ = again.tick(), if self.comparing.is_none() => {
                    let context = self.context.clone();
                    self.comparing = Some(async move { compare(&context).await }.boxed());
                }
                plan = async { self.comparing.as_mut().expect("checked").await }, if self.comparing.is_some() => {
                    self.comparing = None;
                    match plan {
                        // What is missing there is delivered by who began with it.
                        Ok(plan) => self.carry_out(Plan { deliver: Vec::new(), ..plan }),
                        Err(error) => warn!(runner = %seat.agent, error = %error.report(), "failed to compare runs; trying again later"),
                    }
                }
            }
        }
    }

    /// Unmarks what is marked as sent and was not: a runner that comes back with another journal would take it for lost.
    async fn give_back(&mut self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let mut unsent = Vec::new();
        if let Some(claiming) = self.claiming.take()
            && let Ok((runs, _)) = claiming.await
        {
            unsent.extend(runs.into_iter().map(|(run, _)| run.seq));
        }
        orders.close();
        while let Ok(order) = orders.try_recv() {
            if let Order::Run(sent, _) = order {
                unsent.push(sent.0.seq);
            }
        }
        if unsent.is_empty() {
            return;
        }
        let (app, now) = (&self.context.app, self.context.seat.incarnation.clone());
        let unmarked = app
            .db
            .write(move |tx| runs::unmark(tx, &unsent, &now))
            .await;
        if let Err(error) = unmarked {
            warn!(runner = %self.context.seat.agent, %error, "runs that were not sent stay marked as sent");
        }
    }

    fn carry_out(&mut self, plan: Plan) {
        let agent = &self.context.seat.agent;
        if plan.adopted > 0 {
            info!(runner = %agent, runs = plan.adopted, "adopted runs that only their runner knew");
        }
        for run in &plan.foreign {
            warn!(runner = %agent, %run, "lists a run that is not its own; left alone");
        }
        for run in plan.settle {
            if self.running.contains_key(&run.seq) || !self.settling.insert(run.seq) {
                continue;
            }
            let context = self.context.clone();
            self.jobs.spawn(async move {
                let _turn = context.turns.acquire().await;
                settle(&context, &run).await;
                run.seq
            });
        }
        for run in plan.follow {
            let place = self.context.seat.slot();
            self.begin(run, Begin::Follow, place);
        }
        for (run, spec) in plan.tell {
            let place = self.context.seat.slot();
            self.begin(run, Begin::Start(Box::new(spec)), place);
        }
        for (run, spec) in plan.deliver {
            if run.stop.is_some() {
                self.begin(run, Begin::Start(Box::new(spec)), None);
            } else {
                self.waiting.push_back((run, spec));
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Run(sent, place) => {
                let (run, spec) = *sent;
                self.begin(run, Begin::Start(Box::new(spec)), Some(place));
            }
            Order::Stop(run, grace) => self.stop(run, grace),
        }
    }

    fn stop(&mut self, seq: i64, grace: Period) {
        if let Some(job) = self.running.get(&seq) {
            job.send_replace(Some(grace));
        } else if let Some(at) = self.waiting.iter().position(|(run, _)| run.seq == seq) {
            let (run, spec) = self.waiting.remove(at).expect("it is there");
            self.stops.insert(seq, grace);
            self.begin(run, Begin::Start(Box::new(spec)), None);
        } else {
            self.stops.insert(seq, grace);
        }
    }

    /// Uses a place: for what was sent before, or for what is queued.
    fn fill(&mut self, place: OwnedSemaphorePermit) {
        if let Some((run, spec)) = self.waiting.pop_front() {
            self.begin(run, Begin::Start(Box::new(spec)), Some(place));
            return;
        }
        self.backlog = false;
        let mut places = vec![place];
        places.extend(std::iter::from_fn(|| self.context.seat.slot()).take(CLAIM - 1));
        self.claiming = Some(claim(self.context.clone(), places).boxed());
    }

    fn claimed(&mut self, claimed: Result<Claimed>) {
        match claimed {
            Ok((runs, places)) => {
                // As many as there were places: there may be more.
                self.backlog |= runs.len() == places.len();
                for ((run, spec), place) in runs.into_iter().zip(places) {
                    self.begin(run, Begin::Start(Box::new(spec)), Some(place));
                }
            }
            Err(error) => {
                warn!(runner = %self.context.seat.agent, error = %error.report(), "failed to claim queued runs; trying again");
                self.backlog = true;
                self.claiming = Some(
                    tokio::time::sleep(std::time::Duration::from_secs(1))
                        .map(|()| Ok((Vec::new(), Vec::new())))
                        .boxed(),
                );
            }
        }
    }

    fn begin(&mut self, run: Run, begin: Begin, place: Option<OwnedSemaphorePermit>) {
        let seq = run.seq;
        if self.running.contains_key(&seq) {
            return;
        }
        let asked = self
            .stops
            .remove(&seq)
            .or(run.stop.as_ref().map(|stop| stop.grace));
        let (stop, stopped) = watch::channel(asked);
        self.running.insert(seq, stop);
        let job = Job {
            run,
            place,
            stop: stopped,
        };
        let context = self.context.clone();
        self.jobs.spawn(async move {
            job.run(&context, begin).await;
            seq
        });
    }
}

/// Compares both sides' runs. Asks until it is answered.
async fn plan(context: &Context) -> Plan {
    let mut backoff = Backoff::new();
    loop {
        match compare(context).await {
            Ok(plan) => return plan,
            Err(error) => {
                warn!(runner = %context.seat.agent, error = %error.report(), "failed to compare runs; trying again");
                tokio::time::sleep(backoff.wait()).await;
            }
        }
    }
}

async fn compare(context: &Context) -> Result<Plan> {
    let listed = context.runner.list().await?;
    let (agent, now) = (context.seat.agent.clone(), context.seat.incarnation.clone());
    let write = context
        .app
        .db
        .write(move |tx| reconcile::plan(tx, &agent, &now, &listed));
    let plan = write.await?.into_value();
    fault::step("server.reconciled");
    Ok(plan)
}

/// Takes queued runs for these places and marks them as sent, durably: they wait in a queue anyway, and
/// a mark that is lost would let a runner that forgot them start them again.
async fn claim(context: Context, places: Vec<OwnedSemaphorePermit>) -> Result<Claimed> {
    let (agent, now) = (context.seat.agent.clone(), context.seat.incarnation.clone());
    let limit = places.len();
    let committed = context
        .app
        .db
        .write(move |tx| runs::claim(tx, &agent, &now, limit))
        .await?;
    fault::step("server.claimed");
    let (runs, commit) = committed.into_parts();
    if !runs.is_empty() {
        context.app.db.synced(&commit).await?;
    }
    Ok((runs, places))
}
