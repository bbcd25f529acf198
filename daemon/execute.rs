// SPDX-License-Identifier: GPL-2.0

//! What each command does.

use crate::cache::setup::Setup;
use crate::daemon::command::Command;
use crate::daemon::command::CopenAnswer;
use crate::daemon::command::Mode;
use crate::daemon::life::Daemon;
use crate::daemon::life::Life;
use crate::errno::Errno;
use core::sync::atomic::Ordering;
use kernel::prelude::*;

/// `debug` bit: every command is logged.
const DEBUG_COMMANDS: u32 = 1;

impl Daemon {
    /// Does what a command asks for.
    ///
    /// # Errors
    ///
    /// See `docs/protocol.md`.
    pub(super) fn execute(&self, command: Command<'_>) -> Result {
        if self.debug.load(Ordering::Relaxed) & DEBUG_COMMANDS != 0 {
            pr_info!("command: {:?}\n", command);
        }
        match command {
            Command::Dir(path) => self.set_up(|setup| setup.set_dir(path)),
            Command::Tag(name) => self.set_up(|setup| setup.set_tag(name)),
            Command::Limit {
                resource,
                mark,
                percent,
            } => self.set_up(|setup| {
                setup
                    .options
                    .limits
                    .set(resource, mark, percent)
                    .map_err(|errno| {
                        pr_err!("limits must keep to 0% <= stop < cull < run < 100%\n");
                        errno.into()
                    })
            }),
            Command::Bind(Mode::OnDemand) => self.bind(),
            Command::Bind(Mode::Plain) => {
                pr_err!(
                    "only 'bind ondemand' is supported: the in-tree module has the plain mode\n"
                );
                Err(Errno::EOPNOTSUPP.into())
            }
            Command::Debug(mask) => {
                self.debug.store(mask, Ordering::Relaxed);
                Ok(())
            }
            Command::Copen { msg_id, answer } => self.copen(msg_id, answer),
            Command::Restore => {
                self.bound()?;
                self.engine().restore();
                Ok(())
            }
            Command::Timeout(seconds) => self.set_up(|setup| {
                setup.options.timeout = seconds;
                Ok(())
            }),
            Command::Fetch(bytes) => self.set_up(|setup| {
                setup.options.fetch = bytes;
                Ok(())
            }),
            Command::Batch(count) => self.set_up(|setup| {
                setup.options.batch = count;
                Ok(())
            }),
            Command::Fill(fill) => self.set_up(|setup| {
                setup.options.fill = fill;
                Ok(())
            }),
            Command::Identity => self.turn_identity_on(),
            Command::Cull(name) => self.in_service()?.cull(name),
            Command::InUse(name) => self.in_service()?.check_in_use(name),
            Command::SecurityContext(context) => {
                self.set_up(|setup| setup.set_security_context(context))
            }
        }
    }

    fn copen(&self, msg_id: u32, answer: CopenAnswer) -> Result {
        let cache = self.bound()?;
        match answer {
            CopenAnswer::Version(version) if cache.can_be_told(&version) => {
                cache.copen(msg_id, Ok(version))
            }
            CopenAnswer::Error(errno) => cache.copen(msg_id, Err(errno)),
            CopenAnswer::Version(_) | CopenAnswer::Malformed => {
                cache.copen(msg_id, Err(Errno::EINVAL))?;
                Err(EINVAL)
            }
        }
    }

    /// Changes the set-up of a cache that is not bound yet.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is bound; what `change` says.
    fn set_up(&self, change: impl FnOnce(&mut Setup) -> Result) -> Result {
        match &mut *self.life.lock() {
            Life::Setup(setup) => change(setup),
            _ => Err(EBUSY),
        }
    }

    /// `identity on`. Of a bound cache it asks whether that was said before, as who takes the cache
    /// over needs to know.
    fn turn_identity_on(&self) -> Result {
        match &mut *self.life.lock() {
            Life::Setup(setup) => setup.options.identity = true,
            Life::Bound(cache) if cache.knows_tokens() => {}
            _ => return Err(EBUSY),
        }
        Ok(())
    }
}
