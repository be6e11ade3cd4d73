//! `kappa inspect`.
