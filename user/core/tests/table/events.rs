// SPDX-License-Identifier: MIT OR Apache-2.0

//! Random orders of events, and what must hold while they are played.

use ondemand_core::model::Event;
use ondemand_core::model::Fault;
use ondemand_core::model::Policy;
use ondemand_core::model::Sim;
use proptest::prelude::*;

fn event() -> impl Strategy<Value = Event> {
    let n = any::<u8>;
    let thread = || 0..3u8;
    let mostly = || prop::bool::weighted(0.8);
    prop_oneof![
        4 => Just(Event::Admit),
        10 => n().prop_map(Event::Read),
        10 => (n(), prop::bool::weighted(0.9)).prop_map(|(n, ok)| Event::Work(n, ok)),
        16 => (thread(), prop::bool::weighted(0.2)).prop_map(|(t, small)| Event::Begin(t, small)),
        16 => (thread(), mostly()).prop_map(|(t, ok)| Event::End(t, ok)),
        12 => (n(), mostly()).prop_map(|(n, ok)| Event::Copen(n, ok)),
        2 => (0..24u8).prop_map(Event::ForgeCopen),
        10 => (n(), mostly()).prop_map(|(n, ok)| Event::Finish(n, ok)),
        6 => n().prop_map(Event::Complete),
        2 => (n(), 0..24u8).prop_map(|(n, id)| Event::ForgeComplete(n, id)),
        6 => n().prop_map(Event::Close),
        4 => Just(Event::Restore),
        3 => n().prop_map(Event::Cancel),
        3 => Just(Event::Expire),
        3 => n().prop_map(Event::Drop),
        1 => prop::bool::weighted(0.3).prop_map(|yes| if yes { Event::Flush } else { Event::Restore }),
        4 => n().prop_map(Event::Await),
        12 => n().prop_map(Event::Resume),
        1 => Just(Event::Crash),
        1 => Just(Event::CrashButKeep),
    ]
}

/// Up to `longest` events, in any order.
pub(crate) fn events(longest: usize) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..=longest)
}

/// Plays the events; after each the invariants hold, and now and then everything can come to an end.
pub(crate) fn play(fault: Fault, events: &[Event]) -> Result<(), String> {
    let mut sim = Sim::new(fault);
    sim.admit();
    for (step, event) in events.iter().enumerate() {
        if sim.apply(*event).is_none() {
            continue;
        }
        let at = |why| format!("step {step}, {event:?}: {why}");
        sim.check().map_err(at)?;
        if step % 8 == 0 || step + 1 == events.len() {
            for policy in [
                Policy::Same,
                Policy::Successor,
                Policy::Heir,
                Policy::Stranger,
            ] {
                let served = sim.clone().serve(policy).map_err(at)?;
                served.tear_down(false).map_err(at)?;
            }
            sim.clone().tear_down(false).map_err(at)?;
            sim.clone().tear_down(true).map_err(at)?;
        }
    }
    Ok(())
}
