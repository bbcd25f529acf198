// SPDX-License-Identifier: GPL-2.0

//! The request table in the kernel: under its spinlock, with its effects carried out.
//!
//! Locking: the table's lock is a leaf but for the xarrays' own locks inside it. Everything here may
//! be called with the object's store mutex held, nothing in interrupt context. A reader that waits
//! for an opening looks at the table on its way to sleep: what follows from that does not sleep.

use crate::errno::Errno;
use crate::kcompat::delayed_work::DelayedWork;
use crate::kcompat::print::ratelimit;
use crate::kcompat::time::jiffies;
use crate::kcompat::time::seconds_in_jiffies;
use crate::kcompat::workqueue::OwnedQueue;
use crate::kcompat::xarray;
use crate::ondemand::answer::Opened;
use crate::ondemand::client::Client;
use crate::ondemand::fetch::Fetch;
use crate::ondemand::fetch::Fetches;
use crate::ondemand::message;
use crate::ondemand::pollers::Pollers;
use crate::ondemand::queue::Effect;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Entry;
use crate::ondemand::queue::Env;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::Request;
use crate::ondemand::state::Awaited;
use crate::ondemand::state::State;
use crate::ondemand::table::Refused;
use crate::ondemand::table::Table;
use crate::ondemand::trace;
use crate::ondemand::waiter::Waiter;
use crate::stop_points::Stops;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering;
use kernel::new_spinlock;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::SpinLock;

/// Who waits for a request.
pub(crate) enum Ticket {
    /// Nobody: it is an OPEN or a CLOSE.
    Nobody,
    /// One reader.
    Reader(Arc<Waiter>),
    /// All readers who miss a part of what it asks for.
    Readers(Arc<Fetch>),
}

/// What surrounds a table in the kernel whose objects are `C`s.
pub(crate) struct KernelEnv<C>(PhantomData<C>);

impl<C: Client> Env for KernelEnv<C> {
    type Ticket = Ticket;
    type Handle = Arc<C>;
    type Requests = xarray::Values<Request<Self>>;
    type Objects = xarray::Values<Entry<Self>>;

    fn state_changed(object: &Arc<C>, from: State, to: State) {
        trace::state(object.number(), from, to);
    }
}

/// A place for a request, and the request that is to fill it.
pub(super) type Prepared<C> = (
    xarray::Reservation<Request<KernelEnv<C>>>,
    KBox<Request<KernelEnv<C>>>,
);

/// The work item of the deadlines.
pub(super) const EXPIRY: u64 = 0;

/// Traces an entry into the queue. Called under the table's lock, before anybody can deliver the
/// request.
pub(super) fn trace_enqueued<C: Client>(
    object: u32,
    kind: Kind,
    queued: &Result<u32, Refused<KernelEnv<C>>>,
) {
    if let Ok(msg_id) = queued {
        trace::enqueue(object, *msg_id, kind);
    }
}

/// The request table of one cache, and those who wait for it.
#[pin_data]
pub(crate) struct Engine<C: Client> {
    #[pin]
    table: SpinLock<Table<KernelEnv<C>>>,
    requests: xarray::Reserver<Request<KernelEnv<C>>>,
    objects: xarray::Reserver<Entry<KernelEnv<C>>>,
    pollers: Arc<Pollers>,
    /// Ends what nobody answers in time ([`expiry`](crate::ondemand::expiry)).
    #[pin]
    pub(super) expiry: DelayedWork<Engine<C>, EXPIRY>,
    /// Used only with `fetch BYTES`.
    #[pin]
    pub(super) fetches: Fetches,
    reopen: &'static OwnedQueue,
    stops: Stops,
    /// Ticks that a request waits for its answer; 0: for ever. Set before `bind`.
    timeout: AtomicU64,
    /// The most messages that one `read` delivers, 1 or more. Set before `bind`.
    batch: AtomicU32,
}

impl<C: Client> Engine<C> {
    /// An empty table; `reopen` is where reopen work is queued, and the work of the deadlines.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(reopen: &'static OwnedQueue, stops: &Stops) -> Result<Arc<Self>> {
        let (requests, request_values) = xarray::new()?;
        let (objects, object_values) = xarray::new()?;
        let table = Table::new(request_values, object_values);
        let pollers = Pollers::new()?;
        let stops = stops.clone();
        Arc::pin_init(
            pin_init!(Self {
                table <- new_spinlock!(table, "ondemand_table"),
                requests,
                objects,
                pollers,
                expiry <- DelayedWork::new(reopen),
                fetches <- Fetches::new(),
                reopen,
                stops,
                timeout: AtomicU64::new(0),
                batch: AtomicU32::new(1),
            }),
            GFP_KERNEL,
        )
    }

    /// Gives each request from now on so many seconds; 0: all the time there is.
    pub(crate) fn set_timeout(&self, seconds: u32) {
        let ticks = seconds_in_jiffies(seconds);
        self.timeout.store(ticks, Ordering::Relaxed);
    }

    /// Has one `read` deliver up to `count` messages from now on; 0: one.
    pub(crate) fn set_batch(&self, count: u32) {
        self.batch.store(count.max(1), Ordering::Relaxed);
    }

    /// The most messages that one `read` delivers.
    pub(super) fn batch(&self) -> u32 {
        self.batch.load(Ordering::Relaxed)
    }

    /// When a request that is queued now has to be answered; `None`: never.
    pub(super) fn due(&self) -> Option<u64> {
        match self.timeout.load(Ordering::Relaxed) {
            0 => None,
            ticks => Some(jiffies().saturating_add(ticks)),
        }
    }

    /// Has the oldest deadline looked after. Called under the table's lock, after a request was
    /// queued. The work may be running and about to queue itself: whoever comes first queues it for
    /// the oldest, not for a request of its own, so that it never waits for a later one.
    pub(super) fn look_after_deadlines(self: &Arc<Self>, table: &mut Table<KernelEnv<C>>) {
        if let Some(due) = table.next_due() {
            self.expire_at(due);
        }
    }

    /// Has what is due at that tick ended then, never before, and up to an eighth of the wait later, as
    /// the kernel's timers are. Called under the table's lock with the table's oldest deadline; a dead
    /// table has its work queued no more.
    pub(super) fn expire_at(self: &Arc<Self>, due: u64) {
        DelayedWork::<_, EXPIRY>::enqueue(self, due.saturating_sub(jiffies()));
    }

    /// The daemon threads that poll the device.
    pub(crate) fn pollers(&self) -> &Arc<Pollers> {
        &self.pollers
    }

    /// Where threads are to stop.
    pub(crate) fn stops(&self) -> &Stops {
        &self.stops
    }

    /// Whether a message is deliverable.
    pub(crate) fn readable(&self) -> bool {
        self.table.lock().readable()
    }

    /// Runs one event of the table and carries out what follows from it.
    pub(super) fn run<R>(
        &self,
        event: impl FnOnce(&mut Table<KernelEnv<C>>, &mut Effects<KernelEnv<C>>) -> R,
    ) -> R {
        let mut effects = Effects::new();
        let result = event(&mut self.table.lock(), &mut effects);
        loop {
            for effect in effects.drain() {
                self.carry_out(effect);
            }
            match effects.take_more() {
                Some(more) => self.table.lock().resume(more, &mut effects),
                None => {
                    // All were taken out: there is nothing to look through for what to drop.
                    core::mem::forget(effects);
                    return result;
                }
            }
        }
    }

    fn carry_out(&self, effect: Effect<KernelEnv<C>>) {
        match effect {
            Effect::Complete(request, outcome) => self.complete(request, outcome),
            Effect::Expire(request, object) => {
                trace::expire(
                    object.volume_key(),
                    object.name(),
                    request.msg_id(),
                    request.kind,
                );
                // A READ's reader says so itself.
                if request.kind == Kind::Open && ratelimit() {
                    pr_warn!("{}: OPEN: no answer in time: ETIMEDOUT\n", object);
                }
                self.complete(request, Err(Errno::ETIMEDOUT));
            }
            Effect::WakeDaemon => self.pollers.wake_for_message(),
            Effect::WakeObject(object) => object.opened().wake_all(0),
            Effect::Reopen(object) => object.queue_reopening(self.reopen),
            Effect::Forget(entry) => drop(entry),
        }
    }

    /// Tells all who wait for a request that it has ended.
    fn complete(&self, request: KBox<Request<KernelEnv<C>>>, outcome: Result<(), Errno>) {
        let error = outcome.err().map_or(0, Errno::to_raw);
        trace::complete(request.msg_id(), request.object_id(), request.kind, error);
        match &request.ticket {
            Ticket::Nobody => {}
            Ticket::Reader(waiter) => waiter.end(error),
            Ticket::Readers(fetch) => self.fetches.end(fetch, error),
        }
    }

    /// A request without a place in the queue yet. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EBUSY` with 2^32 requests in the queue.
    pub(super) fn prepare(&self, kind: Kind, size: usize, ticket: Ticket) -> Result<Prepared<C>> {
        let place = self.requests.reserve()?;
        let request = KBox::new(Request::new(kind, size, ticket), GFP_KERNEL)?;
        Ok((place, request))
    }

    /// Takes an object in, as one that is to be opened, and tells its place.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn admit(&self, object: &Arc<C>) -> Result<u32> {
        let place = self.objects.reserve()?;
        let entry = KBox::new(Entry::new(object.clone()), GFP_KERNEL)?;
        object.set_number(place.id());
        Ok(self.table.lock().admit(place, entry))
    }

    /// Queues the OPEN of an object that is to be opened; if that fails, so does the opening.
    pub(crate) fn send_open(self: &Arc<Self>, object: &C) {
        let number = object.number();
        let size = object.open_message(0).size();
        let (place, mut request) = match self.prepare(Kind::Open, size, Ticket::Nobody) {
            Ok(prepared) => prepared,
            Err(error) => {
                return self.run(|table, fx| table.abort_open(number, error.into(), fx));
            }
        };
        let queued = self.run(|table, fx| {
            request.due = self.due();
            let queued = table.enqueue_open(number, place, request, fx);
            trace_enqueued(number, Kind::Open, &queued);
            self.look_after_deadlines(table);
            queued
        });
        // Refused: a dead cache, a dropped object, or one that is open again: nothing to send. What
        // comes back is dropped here, without the lock.
        drop(queued);
    }

    /// Takes a READ out that nobody waits for any more, unless it has ended.
    pub(super) fn cancel(&self, msg_id: u32) {
        let request = self.table.lock().cancel(msg_id);
        if let Some(request) = request {
            let (object_id, kind) = (request.object_id(), request.kind);
            trace::complete(msg_id, object_id, kind, Errno::EINTR.to_raw());
        }
    }

    /// Waits until the object has been open once, which drives an opening if there is none.
    ///
    /// # Errors
    ///
    /// `EINTR` if the task was killed; why the opening failed; `EIO` if the cache is dead or the
    /// object is dropped.
    pub(crate) fn wait_open(&self, object: &C) -> Result {
        let mut seen = None;
        let mut outcome = Awaited::Pending;
        object
            .opened()
            .wait_killable_freezable(|| {
                outcome = self.run(|table, fx| table.await_open(object.number(), &mut seen, fx));
                outcome != Awaited::Pending
            })
            .map_err(|_| EINTR)?;
        match outcome {
            Awaited::Failed(errno) => Err(errno.into()),
            _ => Ok(()),
        }
    }

    /// Ends an object's time in the table. Does not wait for the daemon.
    pub(crate) fn drop_object(&self, object: &C) {
        let number = object.number();
        let placeholder = Kind::Close { object_id: 0 };
        let close = self
            .prepare(placeholder, message::HEADER, Ticket::Nobody)
            .inspect_err(|_| pr_warn!("no memory for a CLOSE: the daemon keeps an fd too long\n"))
            .ok();
        let msg_id = close.as_ref().map(|(place, _)| place.id());
        // What was not needed is dropped without the lock.
        drop(self.run(|table, fx| {
            let unused = table.drop_object(number, close, fx);
            if let (Some(msg_id), None) = (msg_id, &unused) {
                trace::enqueue(number, msg_id, placeholder);
            }
            unused
        }));
    }

    /// `copen`: see [`Table::copen`].
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that is no OPEN which the daemon holds; `EBADFD`.
    pub(crate) fn copen(
        &self,
        msg_id: u32,
        answer: Result<u64, Errno>,
    ) -> Result<Option<Opened<KernelEnv<C>>>, Errno> {
        let result = answer.map_or_else(
            |errno| i64::from(errno.to_raw()),
            |size| i64::try_from(size).unwrap_or(i64::MAX),
        );
        self.run(|table, fx| {
            let object_id = table.delivered_as(msg_id);
            let opened = table.copen(msg_id, answer.map(|_| ()), fx);
            if opened.as_ref().err() != Some(&Errno::EINVAL) {
                trace::answer(msg_id, object_id, Kind::Open, result);
            }
            opened
        })
    }

    /// The outcome of checking the file behind an answered OPEN: see [`Table::copen_finish`].
    pub(crate) fn copen_finish(&self, opened: &Opened<KernelEnv<C>>, outcome: Result<(), Errno>) {
        self.run(|table, fx| table.copen_finish(opened, outcome, fx));
    }

    /// `restore`: see [`Table::restore`].
    pub(crate) fn restore(&self) {
        self.run(|table, fx| table.restore(fx));
    }

    /// Kills the table: nothing is taken any more, all requests end with `EIO`, and nothing is due.
    pub(crate) fn flush(self: &Arc<Self>) {
        self.run(|table, fx| table.flush(fx));
        DelayedWork::<_, EXPIRY>::shut(self);
    }

    /// The object at or above `from`.
    pub(crate) fn next_object(&self, from: u32) -> Option<(u32, Arc<C>)> {
        self.table.lock().next_object(from)
    }
}
