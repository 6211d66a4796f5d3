//! Seccomp profiles: docker's format, with conditions on machine and container, to the runtime's.

mod builtin;
mod profile;

use hull_specs_oci as oci;

use crate::error::Result;

/// What a profile's conditions look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    /// As Go names it.
    pub(crate) architecture: &'a str,
    pub(crate) kernel: (u32, u32),
    /// The bounding set.
    pub(crate) capabilities: &'a [String],
}

/// The profile of containers that name none.
pub(crate) fn builtin(facts: &Facts<'_>) -> oci::Seccomp {
    builtin::profile(facts)
}

/// A profile's JSON, for a container. None: the profile filters nothing.
pub(crate) fn of_profile(json: &str, facts: &Facts<'_>) -> Result<Option<oci::Seccomp>> {
    profile::Profile::parse(json)?.lower(facts)
}

/// Whether a profile makes sense.
pub(crate) fn parse(json: &str) -> Result<()> {
    let profile = profile::Profile::parse(json)?;
    let facts = Facts { architecture: "amd64", kernel: (u32::MAX, 0), capabilities: &[] };
    profile.lower(&facts).map(drop)
}
