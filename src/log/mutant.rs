//! Steps that keep records safe, each of which a test can leave out, to show that some test then notices. Never set in use.

use crate::log::frame::Part;
use std::str::FromStr;

/// A step left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum Mutant {
    /// Records are acknowledged before the disk has them.
    AckBeforeSync,
    /// A failed sync is tried again, and its second answer believed.
    RetrySync,
    /// A new file gets its name before the old one is on disk as a whole.
    RollBeforeSync,
    /// A frame claims to be durable itself, not only those before it.
    ProofAhead,
    /// The name of a new file is not made durable.
    NoFolderSync,
    /// Checksums of all files start alike.
    NoSalt,
    /// What was read when the log is opened is believed to be on disk.
    TrustUnsynced,
    /// Frames that nothing proves durable are not written again.
    NoRewrite,
    /// Damage in the newest file is cut off as if it were a torn write.
    CutDamage,
    /// A torn write stays in the file, and the log goes on over it.
    KeepTornTail,
    /// A catalog view that knows more than the journal is believed.
    TrustNewerView,
    /// The append clock starts from the wall clock alone.
    NoClockFloor,
    /// Offsets that a lost frame may have held are given out again.
    ReuseOffsets,
    /// Checksums of frame headers are not looked at.
    NoHeaderCrc,
    /// Checksums of directories are not looked at.
    NoDirectoryCrc,
    /// Checksums of metadata sections are not looked at.
    NoMetaCrc,
    /// Checksums of bodies are not looked at.
    NoBodyCrc,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 17] = [
        Mutant::AckBeforeSync,
        Mutant::RetrySync,
        Mutant::RollBeforeSync,
        Mutant::ProofAhead,
        Mutant::NoFolderSync,
        Mutant::NoSalt,
        Mutant::TrustUnsynced,
        Mutant::NoRewrite,
        Mutant::CutDamage,
        Mutant::KeepTornTail,
        Mutant::TrustNewerView,
        Mutant::NoClockFloor,
        Mutant::ReuseOffsets,
        Mutant::NoHeaderCrc,
        Mutant::NoDirectoryCrc,
        Mutant::NoMetaCrc,
        Mutant::NoBodyCrc,
    ];

    /// The part of a frame whose checksum it does not look at.
    pub(crate) fn blind_to(self) -> Option<Part> {
        match self {
            Mutant::NoHeaderCrc => Some(Part::Header),
            Mutant::NoDirectoryCrc => Some(Part::Directory),
            Mutant::NoMetaCrc => Some(Part::Meta),
            Mutant::NoBodyCrc => Some(Part::Body),
            _ => None,
        }
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Mutant, String> {
        let found = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
        found.ok_or_else(|| format!("there is no mutant {name}"))
    }
}
