// SPDX-License-Identifier: MIT OR Apache-2.0

//! Words to tell a story about one table with.

use ondemand_core::errno::Errno;
use ondemand_core::model::held::Held;
use ondemand_core::model::Fault;
use ondemand_core::model::Policy;
use ondemand_core::model::Sim;
use ondemand_core::ondemand::queue::Kind;
use ondemand_core::ondemand::queue::Phase;
use ondemand_core::ondemand::state::State;

/// Room for any message.
pub(crate) const ALL: usize = usize::MAX;

/// A story that checks the invariants at each step that it takes through here.
pub(crate) struct Story(pub(crate) Sim);

impl Story {
    pub(crate) fn new() -> Self {
        Story(Sim::new(Fault::None))
    }

    /// An object and its OPEN, which the daemon holds.
    pub(crate) fn opening(&mut self) -> (u32, Held) {
        let object = self.0.admit();
        self.work();
        let open = self.next();
        assert_eq!(open.kind, Kind::Open);
        (object, open)
    }

    /// An open object and its object_id.
    pub(crate) fn open() -> (Self, u32, u32) {
        let mut story = Story::new();
        let (object, open) = story.opening();
        story.0.copen_ok(open.msg_id).unwrap();
        story.check();
        (story, object, open.object_id)
    }

    pub(crate) fn check(&mut self) {
        self.0.check().unwrap();
    }

    /// The oldest work runs.
    pub(crate) fn work(&mut self) -> u32 {
        let msg_id = self.0.work(0, Ok(())).unwrap();
        self.check();
        msg_id
    }

    /// The daemon reads one message.
    pub(crate) fn next(&mut self) -> Held {
        let held = self.0.read_next().expect("a message");
        self.check();
        held
    }

    /// The daemon finds nothing to read.
    pub(crate) fn is_quiet(&mut self) {
        assert!(!self.0.table.readable());
        assert_eq!(self.0.read_next(), None);
        self.check();
    }

    pub(crate) fn read(&mut self, object: u32) -> (u64, u32) {
        let read = self.0.read(object).unwrap();
        self.check();
        read
    }

    pub(crate) fn close(&mut self, object_id: u32) {
        self.0.close(object_id);
        self.check();
    }

    pub(crate) fn drop_object(&mut self, object: u32) -> bool {
        let close = self.0.drop_object(object);
        self.check();
        self.0.resume_all();
        self.check();
        close
    }

    pub(crate) fn outcome(&self, label: u64) -> Option<Result<(), Errno>> {
        self.0.ledger[&label].outcome
    }

    pub(crate) fn state(&mut self, object: u32) -> State {
        let objects = self.0.table.view_objects();
        objects.iter().find(|o| o.handle == object).unwrap().state
    }

    pub(crate) fn phase(&mut self, msg_id: u32) -> Option<Phase> {
        let requests = self.0.table.view_requests();
        requests
            .iter()
            .find(|request| request.msg_id == msg_id)
            .map(|request| request.phase)
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        self.0.table.view_requests().is_empty() && self.0.table.view_objects().is_empty()
    }

    /// Whatever is left can end, in every way there is.
    pub(crate) fn ends(mut self) {
        self.check();
        for policy in [
            Policy::Same,
            Policy::Successor,
            Policy::Heir,
            Policy::Stranger,
        ] {
            let served = self.0.clone().serve(policy).unwrap();
            served.tear_down(false).unwrap();
        }
        self.0.clone().tear_down(true).unwrap();
        self.0.tear_down(false).unwrap();
    }
}
