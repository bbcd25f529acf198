// SPDX-License-Identifier: MIT OR Apache-2.0

//! What can happen next.

use crate::scope::Budget;
use crate::scope::Scope;
use ondemand_core::errno::Errno;
use ondemand_core::model::sim::SMALL_ROOM;
use ondemand_core::model::sim::THREADS;
use ondemand_core::model::Sim;
use ondemand_core::ondemand::queue::Kind;
use ondemand_core::ondemand::queue::Phase;
use ondemand_core::ondemand::state::State;
use std::fmt;

/// Something that happens. Numbers are those of the situation in which it does: msg_ids, object_ids,
/// labels of objects, threads, places in the lists of [`Sim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// fscache looks a cookie up.
    Lookup,
    /// A reader comes to this object, and waits if it was never open.
    Come(u32),
    /// A reader that was woken looks again.
    Ask(u8),
    /// A reader that knows its object to be ready asks for a range.
    Go(u8),
    /// The reader of this READ is killed.
    Kill(u32),
    /// A reader that waits for an opening is killed.
    KillWaiter(u8),
    /// A work sends its OPEN.
    Work(u8),
    /// A work finds no memory for its OPEN.
    WorkFails(u8),
    /// A thread begins to read the device.
    Begin(u8),
    /// The same, with a buffer that is too small for an OPEN.
    BeginSmall(u8),
    /// The message that this thread reads has been copied out.
    End(u8),
    /// It could not be.
    EndFails(u8),
    /// An OPEN is answered with a size.
    Copen(u32),
    /// An OPEN is answered with an error.
    Refuse(u32),
    /// The file fits to the answer.
    Finish(u8),
    /// It does not.
    FinishFails(u8),
    /// A READ is answered, on this fd.
    Complete(u32, u32),
    /// An anonymous fd is closed.
    Close(u32),
    /// A walk goes on that one hold of the lock did not finish.
    Resume(u8),
    /// `restore`.
    Restore,
    /// The daemon dies; another one is there at once.
    Crash,
    /// The same, and the next one has the fds of answered OPENs, which a supervisor has kept.
    CrashButKeep,
    /// One of two daemons dies.
    Die(u8),
    /// The oldest request was not answered in time.
    Expire,
    /// fscache withdraws a cookie.
    Drop(u32),
    /// The same, and there is no memory for a CLOSE.
    DropFails(u32),
    /// The cache dies.
    Flush,
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Move::Lookup => write!(f, "another object is looked up"),
            Move::Come(object) => write!(f, "a reader comes to object {object}"),
            Move::Ask(n) => write!(f, "waiter {n} was woken and looks again"),
            Move::Go(n) => write!(f, "reader {n} goes on and wants a READ"),
            Move::Kill(msg) => write!(f, "the reader of READ {msg} is killed"),
            Move::KillWaiter(n) => write!(f, "waiter {n} is killed"),
            Move::Work(n) => write!(f, "work {n} sends its OPEN"),
            Move::WorkFails(n) => write!(f, "work {n} finds no memory for its OPEN"),
            Move::Begin(t) => write!(f, "thread {t} begins to read the device"),
            Move::BeginSmall(t) => write!(f, "thread {t} reads with a small buffer"),
            Move::End(t) => write!(f, "thread {t} has its message copied out"),
            Move::EndFails(t) => write!(f, "thread {t} fails to take its message"),
            Move::Copen(msg) => write!(f, "copen {msg},SIZE"),
            Move::Refuse(msg) => write!(f, "copen {msg},-2"),
            Move::Finish(n) => write!(f, "check {n}: the file is the one"),
            Move::FinishFails(n) => write!(f, "check {n}: the file is not the one"),
            Move::Complete(fd, msg) => write!(f, "READ_COMPLETE of {msg} on the fd of {fd}"),
            Move::Close(fd) => write!(f, "the fd of {fd} is closed"),
            Move::Resume(n) => write!(f, "walk {n} goes on"),
            Move::Restore => write!(f, "restore"),
            Move::Crash => write!(f, "the daemon dies"),
            Move::CrashButKeep => write!(f, "the daemon dies, its fds are kept"),
            Move::Die(t) => write!(f, "daemon {t} dies"),
            Move::Expire => write!(f, "the oldest request is overdue"),
            Move::Drop(object) => write!(f, "object {object} is withdrawn"),
            Move::DropFails(object) => {
                write!(f, "object {object} is withdrawn without memory for a CLOSE")
            }
            Move::Flush => write!(f, "the cache dies"),
        }
    }
}

/// Takes one from a budget; `None` if there is none.
fn spend(budget: &mut u8) -> Option<()> {
    *budget = budget.checked_sub(1)?;
    Some(())
}

/// Numbers of the places of a short list.
fn places(len: usize) -> impl Iterator<Item = u8> {
    (0..=u8::MAX).take(len)
}

/// One way on from a situation.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What happens.
    pub event: Move,
    /// It is part of serving: kernel work, or what a daemon does that serves. Such a daemon may refuse
    /// every OPEN, before or after it has closed the fd.
    pub serving: bool,
    /// What is left of the budget.
    pub budget: Budget,
}

/// All that can happen next.
pub fn steps(scope: &Scope, sim: &Sim, budget: Budget, out: &mut Vec<Step>) {
    out.clear();
    serving(scope, sim, |event| {
        out.push(Step {
            event,
            serving: true,
            budget,
        });
    });
    unplanned(sim, |event, cost| {
        let mut budget = budget;
        if spend(cost(&mut budget)).is_some() {
            out.push(Step {
                event,
                serving: false,
                budget,
            });
        }
    });
}

/// Fds that a daemon leaves behind before it closes one and answers on.
const LEFT_BEHIND: usize = 2;

/// Whether the thread can begin to read, and there is no other that is like it and comes first.
fn reads(sim: &Sim, thread: u8) -> bool {
    if sim.deliveries.contains_key(&thread) {
        return false;
    }
    let like_the_first = !sim.apart && thread > 0 && !sim.deliveries.contains_key(&0);
    match sim.awake {
        // Without a message the read changes nothing.
        None => sim.table.readable() && !like_the_first,
        Some(awake) => awake[usize::from(thread)] && !(like_the_first && awake[0]),
    }
}

fn serving(scope: &Scope, sim: &Sim, mut can: impl FnMut(Move)) {
    for n in places(sim.works.len()) {
        can(Move::Work(n));
        if scope.refusals {
            can(Move::WorkFails(n));
        }
    }
    for n in places(sim.pending.len()) {
        can(Move::Resume(n));
    }
    for n in places(sim.checks.len()) {
        can(Move::Finish(n));
        if scope.refusals {
            can(Move::FinishFails(n));
        }
    }
    for n in places(sim.waiters.len()).filter(|n| sim.waiters[usize::from(*n)].woken) {
        can(Move::Ask(n));
    }
    for n in places(sim.going.len()) {
        can(Move::Go(n));
    }
    for thread in places(THREADS) {
        if sim.deliveries.contains_key(&thread) {
            can(Move::End(thread));
        } else if reads(sim, thread) {
            can(Move::Begin(thread));
        }
    }
    // Without a bound a daemon that always refuses could keep ever more fds.
    let left_behind = sim
        .fds
        .iter()
        .filter(|(object_id, fd)| is_left_behind(sim, **object_id, fd.place));
    let keeps_order = left_behind.count() < LEFT_BEHIND;
    for held in &sim.hand {
        match held.kind {
            Kind::Open if !keeps_order => {}
            Kind::Open => {
                can(Move::Copen(held.msg_id));
                if scope.refusals {
                    can(Move::Refuse(held.msg_id));
                    if sim.fds.contains_key(&held.object_id) {
                        can(Move::Close(held.object_id));
                    }
                }
            }
            // Another daemon has the fd: this one cannot answer.
            Kind::Read { .. } if is_foreign(sim, held.object_id, held.owner) => {}
            Kind::Read { .. } => can(Move::Complete(held.object_id, held.msg_id)),
            Kind::Close { object_id } => can(Move::Close(object_id)),
        }
    }
    for (object_id, fd) in &sim.fds {
        if is_left_behind(sim, *object_id, fd.place) {
            can(Move::Close(*object_id));
        }
    }
    if sim.orphans {
        can(Move::Restore);
    }
}

/// Whether another daemon has the fd.
fn is_foreign(sim: &Sim, object_id: u32, owner: u8) -> bool {
    sim.fds.get(&object_id).is_some_and(|fd| fd.owner != owner)
}

/// Whether a daemon knows that an fd is of no more use: its OPEN has ended with an error.
fn is_left_behind(sim: &Sim, object_id: u32, place: u32) -> bool {
    match sim.table.view_state(place) {
        Some(State::Close | State::Reopening(_)) => {
            !sim.hand.iter().any(|held| held.object_id == object_id)
                && !sim
                    .checks
                    .iter()
                    .any(|opened| opened.object_id == object_id)
        }
        Some(State::Open { object_id: newest }) => newest != object_id,
        // A CLOSE will tell.
        Some(State::Dropping) | None => false,
    }
}

fn unplanned(sim: &Sim, mut can: impl FnMut(Move, fn(&mut Budget) -> &mut u8)) {
    let live = sim.cookies.iter().filter(|(_, cookie)| !cookie.dropped);
    for (object, _) in live.clone() {
        can(Move::Come(*object), |budget| &mut budget.readers);
        can(Move::Drop(*object), |budget| &mut budget.drops);
        can(Move::DropFails(*object), |budget| &mut budget.drops);
    }
    if live.count() < 2 {
        can(Move::Lookup, |budget| &mut budget.lookups);
    }
    for request in sim.table.view_requests() {
        let held = sim.hand.iter().any(|held| held.msg_id == request.msg_id);
        match (request.kind, request.phase) {
            (Kind::Open, Phase::Delivered { .. }) if !held => {
                can(Move::Copen(request.msg_id), |budget| &mut budget.wrongs);
                can(Move::Refuse(request.msg_id), |budget| &mut budget.wrongs);
            }
            (Kind::Read { .. }, _) => {
                can(Move::Kill(request.msg_id), |budget| &mut budget.kills);
                if let (Some(object_id), false) = (request.answerable, held) {
                    let answer = Move::Complete(object_id, request.msg_id);
                    can(answer, |budget| &mut budget.wrongs);
                }
            }
            _ => {}
        }
    }
    for n in places(sim.waiters.len()) {
        can(Move::KillWaiter(n), |budget| &mut budget.kills);
    }
    for thread in places(THREADS) {
        if sim.deliveries.contains_key(&thread) {
            can(Move::EndFails(thread), |budget| &mut budget.failures);
        } else if reads(sim, thread) {
            can(Move::BeginSmall(thread), |budget| &mut budget.failures);
        }
        if sim.apart {
            can(Move::Die(thread), |budget| &mut budget.crashes);
        }
    }
    for object_id in sim.fds.keys() {
        can(Move::Close(*object_id), |budget| &mut budget.closes);
    }
    if !sim.apart {
        can(Move::Crash, |budget| &mut budget.crashes);
        can(Move::CrashButKeep, |budget| &mut budget.crashes);
    }
    can(Move::Restore, |budget| &mut budget.restores);
    can(Move::Expire, |budget| &mut budget.expiries);
    if !sim.table.is_dead() {
        can(Move::Flush, |budget| &mut budget.flushes);
    }
}

/// Lets it happen.
pub fn apply(sim: &mut Sim, event: Move) {
    // What the table answers is judged within `Sim`.
    match event {
        Move::Lookup => {
            sim.admit();
        }
        Move::Come(object) => {
            sim.wait(object);
        }
        Move::Ask(n) => sim.ask(usize::from(n)),
        Move::Go(n) => sim.go_on(usize::from(n)),
        Move::Kill(msg_id) => {
            sim.cancel(msg_id);
        }
        Move::KillWaiter(n) => {
            sim.waiters.remove(usize::from(n));
        }
        Move::Work(n) => {
            let _: Result<u32, Errno> = sim.work(usize::from(n), Ok(()));
        }
        Move::WorkFails(n) => {
            let _: Result<u32, Errno> = sim.work(usize::from(n), Err(Errno::ENOMEM));
        }
        Move::Begin(thread) => {
            sim.begin(thread, usize::MAX);
        }
        Move::BeginSmall(thread) => {
            sim.begin(thread, SMALL_ROOM);
        }
        Move::End(thread) => {
            sim.delivered(thread);
        }
        Move::EndFails(thread) => sim.undeliver(thread),
        Move::Copen(msg_id) => {
            let _: Result<(), Errno> = sim.copen(msg_id, Ok(()));
        }
        Move::Refuse(msg_id) => {
            let _: Result<(), Errno> = sim.copen(msg_id, Err(Errno::ENOENT));
        }
        Move::Finish(n) => sim.finish(usize::from(n), Ok(())),
        Move::FinishFails(n) => sim.finish(usize::from(n), Err(Errno::EINVAL)),
        Move::Complete(object_id, msg_id) => {
            let _: Result<(), Errno> = sim.read_complete(object_id, msg_id);
        }
        Move::Close(object_id) => sim.close(object_id),
        Move::Resume(n) => sim.resume(usize::from(n)),
        Move::Restore => sim.restore(),
        Move::Crash => sim.crash(),
        Move::CrashButKeep => sim.crash_but_keep_fds(),
        Move::Die(owner) => sim.die(owner),
        Move::Expire => {
            sim.expire();
        }
        Move::Drop(object) => {
            sim.drop_object(object);
        }
        Move::DropFails(object) => sim.drop_without_close(object),
        Move::Flush => sim.flush(),
    }
    sim.forget_history();
}
