// SPDX-License-Identifier: GPL-2.0

//! What the daemon tells before `bind`: where the cache lives, what it is called, whose rights it has, and the
//! [options](crate::store::options).

use crate::store::options::Options;
use crate::vfs::security::SecurityId;
use kernel::prelude::*;
use kernel::str::CStr;

/// A word of the daemon's: any bytes but NUL.
///
/// # Invariants
///
/// The last byte is the only NUL.
pub(crate) struct Text(KVec<u8>);

impl Text {
    /// # Errors
    ///
    /// `EINVAL` if there is a NUL inside, `ENOMEM`.
    fn new(bytes: &[u8]) -> Result<Self> {
        let mut text = KVec::with_capacity(bytes.len() + 1, GFP_KERNEL)?;
        text.extend_from_slice(bytes, GFP_KERNEL)?;
        text.push(0, GFP_KERNEL)?;
        CStr::from_bytes_with_nul(&text).map_err(|_| EINVAL)?;
        // INVARIANT: Just checked.
        Ok(Text(text))
    }

    /// As a string of C.
    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.0).unwrap_or(kernel::c_str!(""))
    }
}

/// What was set so far.
#[derive(Default)]
pub(crate) struct Setup {
    dir: Option<Text>,
    tag: Option<Text>,
    security_context: Option<SecurityId>,
    pub(crate) options: Options,
}

fn set_once(place: &mut Option<Text>, name: &str, value: &[u8]) -> Result {
    if place.is_some() {
        pr_err!("{name} is set already\n");
        return Err(EEXIST);
    }
    *place = Some(Text::new(value)?);
    Ok(())
}

impl Setup {
    /// `dir PATH`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it was set, `ENOMEM`.
    pub(crate) fn set_dir(&mut self, path: &[u8]) -> Result {
        set_once(&mut self.dir, "the cache directory", path)
    }

    /// `tag NAME`. Errors as [`Setup::set_dir`].
    pub(crate) fn set_tag(&mut self, name: &[u8]) -> Result {
        set_once(&mut self.tag, "the cache tag", name)
    }

    /// `secctx CONTEXT`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it was set or there is no such context, `EOPNOTSUPP` if no security module has
    /// contexts, `ENOMEM`.
    pub(crate) fn set_security_context(&mut self, context: &[u8]) -> Result {
        if self.security_context.is_some() {
            pr_err!("the security context is set already\n");
            return Err(EINVAL);
        }
        let text = Text::new(context)?;
        let id = SecurityId::of_context(text.as_c_str()).inspect_err(|error| {
            pr_err!("security context '{}': {:?}\n", text.as_c_str(), error)
        })?;
        self.security_context = Some(id);
        Ok(())
    }

    /// The cache's directory.
    pub(crate) fn dir(&self) -> Option<&Text> {
        self.dir.as_ref()
    }

    /// The cache's name.
    pub(crate) fn tag(&self) -> Option<&Text> {
        self.tag.as_ref()
    }

    /// The security context that the store is accessed in, if not the daemon's own.
    pub(crate) fn security_context(&self) -> Option<SecurityId> {
        self.security_context
    }
}
