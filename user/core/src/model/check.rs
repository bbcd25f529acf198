// SPDX-License-Identifier: MIT OR Apache-2.0

//! What holds after every step.
//!
//! A walk that one hold of the lock did not finish excuses what it has yet to tidy up: the requests of
//! a dropped object, those of a dead cache, and READs that failed with their object's opening.

use super::sim::Sim;
use crate::ondemand::delivery::Selected;
use crate::ondemand::inspect::ObjectView;
use crate::ondemand::inspect::RequestView;
use crate::ondemand::queue::Effects;
use crate::ondemand::queue::Kind;
use crate::ondemand::queue::More;
use crate::ondemand::queue::Phase;
use crate::ondemand::state::Awaited;
use crate::ondemand::state::Opening;
use crate::ondemand::state::State;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

type Requests = [RequestView<u64>];
type Objects = [ObjectView<u32>];

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

impl Sim {
    /// Holds the table against its invariants and against what everybody around it knows.
    ///
    /// # Errors
    ///
    /// Says what does not hold.
    pub fn check(&self) -> Result<(), String> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        let requests = self.table.view_requests();
        let objects = self.table.view_objects();
        self.check_ledger(&requests)?;
        self.check_lists(&requests, &objects)?;
        self.check_deadlines(&requests)?;
        for request in &requests {
            let object = objects
                .iter()
                .find(|object| object.place == request.object)
                .ok_or_else(|| format!("{request:?} names no object"))?;
            self.check_request(request, object)?;
        }
        for object in &objects {
            self.check_object(object, &requests)?;
        }
        self.check_delivery(&requests)?;
        self.check_hand(&requests)?;
        self.check_threads()?;
        self.check_waiters()
    }

    fn is_pending(&self, more: More) -> bool {
        self.pending.contains(&more)
    }

    /// Each request that has not ended is in the queue, and no other is.
    fn check_ledger(&self, requests: &Requests) -> Result<(), String> {
        for (label, account) in &self.ledger {
            let queued = requests.iter().filter(|r| r.ticket == *label).count();
            let wanted = usize::from(account.outcome.is_none());
            ensure!(
                queued == wanted,
                "request {label} {account:?} is queued {queued} times"
            );
        }
        for request in requests {
            ensure!(
                self.ledger.contains_key(&request.ticket),
                "{request:?} is queued though it has ended"
            );
        }
        ensure!(
            !self.table.is_dead() || self.is_pending(More::Flush) || requests.is_empty(),
            "a dead table holds {requests:?}"
        );
        Ok(())
    }

    fn check_lists(&self, requests: &Requests, objects: &Objects) -> Result<(), String> {
        let mut listed = 0;
        for object in objects {
            let mut at = object.head;
            let mut before = None;
            while let Some(msg_id) = at {
                let request = requests
                    .iter()
                    .find(|request| request.msg_id == msg_id)
                    .ok_or_else(|| format!("{object:?} lists {msg_id}"))?;
                ensure!(
                    request.object == object.place && request.prev == before,
                    "{request:?} in the list of {object:?} after {before:?}"
                );
                before = at;
                at = request.next;
                listed += 1;
                ensure!(listed <= requests.len(), "the list of {object:?} is a ring");
            }
            ensure!(object.tail == before, "{object:?} ends at {before:?}");
        }
        ensure!(listed == requests.len(), "requests are in no list");
        Ok(())
    }

    /// The requests with a deadline are linked both ways, in the order of their times.
    fn check_deadlines(&self, requests: &Requests) -> Result<(), String> {
        let mut timed: Vec<_> = requests.iter().filter(|r| r.due.is_some()).collect();
        timed.sort_by_key(|request| request.due);
        let (first, last) = self.table.view_due();
        let ends = (
            timed.first().map(|r| r.msg_id),
            timed.last().map(|r| r.msg_id),
        );
        ensure!(
            (first, last) == ends,
            "deadlines from {first:?} to {last:?}, not {ends:?}"
        );
        for pair in timed.windows(2) {
            ensure!(
                pair[0].due_next == Some(pair[1].msg_id)
                    && pair[1].due_prev == Some(pair[0].msg_id),
                "{:?} is due before {:?}",
                pair[0],
                pair[1]
            );
        }
        ensure!(
            timed.first().is_none_or(|r| r.due_prev.is_none())
                && timed.last().is_none_or(|r| r.due_next.is_none()),
            "the list of deadlines has no ends"
        );
        Ok(())
    }

    fn check_request(
        &self,
        request: &RequestView<u64>,
        object: &ObjectView<u32>,
    ) -> Result<(), String> {
        ensure!(
            self.ledger[&request.ticket].object == object.handle,
            "{request:?} came to {object:?}"
        );
        ensure!(
            request.marked == (request.phase == Phase::New),
            "the mark of {request:?}"
        );
        let dropping = object.state == State::Dropping;
        let excused = self.table.is_dead() && self.is_pending(More::Flush)
            || dropping && self.is_pending(More::Drop(object.place));
        if excused && !matches!(request.kind, Kind::Close { .. }) {
            return Ok(());
        }
        if let Phase::InDelivery { object_id } = request.phase {
            ensure!(
                self.deliveries.values().any(|(delivery, _)| {
                    delivery.msg_id == request.msg_id && delivery.object_id == object_id
                }),
                "nobody delivers {request:?}"
            );
        }
        let answerable = match (request.kind, request.phase, object.state) {
            // Nobody answers what is held back, or was not delivered.
            (Kind::Read { .. }, Phase::New, State::Open { object_id }) => {
                [None, Some(object_id)].contains(&request.answerable)
            }
            (Kind::Read { .. }, Phase::InDelivery { object_id }, _) => {
                [None, Some(object_id)].contains(&request.answerable)
            }
            (Kind::Read { .. }, Phase::Delivered { object_id }, _) => {
                request.answerable == Some(object_id) && !request.reissue
            }
            _ => request.answerable.is_none(),
        };
        ensure!(answerable, "who answers {request:?} of {object:?}?");
        let msg_id = request.msg_id;
        let holds = match (request.kind, request.phase) {
            (Kind::Close { object_id }, Phase::New | Phase::InDelivery { .. }) => {
                dropping && object.fd == Some(object_id)
            }
            _ if dropping => false,
            (Kind::Open, Phase::New | Phase::InDelivery { .. } | Phase::Delivered { .. }) => {
                object.state == State::Reopening(Opening::Pending { msg_id })
            }
            (Kind::Read { .. }, Phase::New) => matches!(object.state, State::Open { .. }),
            (Kind::Read { .. }, Phase::Delivered { object_id }) => {
                object.state == State::Open { object_id }
            }
            (Kind::Read { .. }, Phase::Parked) => matches!(object.state, State::Reopening(_)),
            (Kind::Read { .. }, Phase::InDelivery { .. }) => true,
            (Kind::Read { .. }, Phase::Failed(_)) => self.is_pending(More::Reap(object.place)),
            _ => false,
        };
        ensure!(holds, "{request:?} of {object:?}");
        Ok(())
    }

    fn check_object(&self, object: &ObjectView<u32>, requests: &Requests) -> Result<(), String> {
        let label = object.handle;
        let cookie = self
            .cookies
            .get(&label)
            .ok_or_else(|| format!("{object:?} is there though it is gone"))?;
        let queued = |wanted: fn(Kind) -> bool| {
            let mine = requests.iter().filter(|r| r.object == object.place);
            mine.filter(|request| wanted(request.kind)).count()
        };
        ensure!(
            queued(|kind| kind == Kind::Open) <= 1
                && queued(|kind| matches!(kind, Kind::Close { .. })) <= 1,
            "{object:?} has more than one OPEN or CLOSE: {requests:?}"
        );
        ensure!(
            cookie.place == object.place && !cookie.forgotten,
            "{object:?} is {cookie:?}"
        );
        ensure!(
            cookie.dropped == (object.state == State::Dropping),
            "{object:?} is {cookie:?}"
        );
        let mine = self.fds.values().filter(|fd| fd.place == object.place);
        let fds = mine.count();
        ensure!(
            u32::try_from(fds) == Ok(object.fds),
            "{object:?} has {fds} fds"
        );
        if let Some(object_id) = object.fd {
            ensure!(
                self.fds.get(&object_id).map(|fd| fd.place) == Some(object.place),
                "{object:?}: its fd is closed"
            );
        }
        let dead = self.table.is_dead();
        let holds = match object.state {
            State::Close => true,
            State::Open { object_id } => object.fd == Some(object_id) && object.ready,
            State::Reopening(Opening::Queued) => dead || self.works.contains(&label),
            State::Reopening(Opening::Pending { msg_id }) => {
                dead || requests
                    .iter()
                    .any(|request| request.msg_id == msg_id && request.kind == Kind::Open)
            }
            State::Reopening(Opening::Validating) => self
                .checks
                .iter()
                .any(|opened| opened.object == object.place && opened.handle == label),
            State::Dropping => {
                object.fds > 0 || self.is_pending(More::Drop(object.place)) || {
                    // A walk of the whole queue may have taken the requests.
                    dead && self.is_pending(More::Flush)
                }
            }
        };
        ensure!(holds, "{object:?}");
        Ok(())
    }

    /// `poll` and `read` agree, and every deliverable message gets its turn.
    fn check_delivery(&self, requests: &Requests) -> Result<(), String> {
        let mut copy = self.table.clone();
        let mut marked: Vec<u32> = requests
            .iter()
            .filter(|request| request.marked)
            .map(|request| request.msg_id)
            .collect();
        ensure!(copy.readable() != marked.is_empty(), "poll against marks");
        while !marked.is_empty() {
            match copy.select(usize::MAX, &mut Effects::new()) {
                Selected::Message(delivery) if marked.contains(&delivery.msg_id) => {
                    marked.retain(|msg_id| *msg_id != delivery.msg_id);
                }
                Selected::Message(delivery) => {
                    return Err(format!("{} was selected", delivery.msg_id))
                }
                Selected::TooSmall | Selected::Nothing => {
                    return Err(format!("{marked:?} are never selected"))
                }
            }
        }
        ensure!(
            matches!(
                copy.select(usize::MAX, &mut Effects::new()),
                Selected::Nothing
            ) && !copy.readable(),
            "more is selected than was marked"
        );
        Ok(())
    }

    /// The daemon can answer a READ that it has as long as the READ and its fd are there, whether or
    /// not `restore` was written since.
    fn check_hand(&self, requests: &Requests) -> Result<(), String> {
        for held in &self.hand {
            let Some(request) = requests.iter().find(|r| r.msg_id == held.msg_id) else {
                continue;
            };
            let is_read = matches!(held.kind, Kind::Read { .. });
            let open = self.table.view_state(held.place)
                == Some(State::Open {
                    object_id: held.object_id,
                });
            ensure!(
                !is_read || !open || request.answerable == Some(held.object_id),
                "{held:?} cannot be answered"
            );
        }
        Ok(())
    }

    /// Of threads that are woken one at a time, somebody is on the way to each deliverable message.
    fn check_threads(&self) -> Result<(), String> {
        let Some(awake) = self.awake else {
            return Ok(());
        };
        let on_the_way = awake.contains(&true)
            || !self.deliveries.is_empty()
            || self
                .pending
                .iter()
                .any(|more| matches!(more, More::Restore(_)));
        ensure!(
            on_the_way || !self.table.readable(),
            "lost wake-up: a message is deliverable and every thread sleeps"
        );
        Ok(())
    }

    /// Who sleeps would be told to go on sleeping, and somebody works on what it waits for.
    fn check_waiters(&self) -> Result<(), String> {
        let walks = self
            .pending
            .iter()
            .any(|more| matches!(more, More::Flush | More::WakeAll(_)));
        for waiter in &self.waiters {
            if waiter.told != Awaited::Pending || waiter.woken || walks {
                continue;
            }
            let mut copy = self.table.clone();
            let mut seen = waiter.seen;
            let mut fx = Effects::new();
            let cookie = self.cookies.get(&waiter.object);
            let place = cookie.map_or(u32::MAX, |cookie| cookie.place);
            let told = copy.await_open(place, &mut seen, &mut fx);
            ensure!(
                told == Awaited::Pending,
                "lost wake-up: {waiter:?} would be told {told:?}"
            );
            ensure!(
                fx.drain().next().is_none(),
                "nobody opens for the sleeping {waiter:?}"
            );
        }
        Ok(())
    }
}
