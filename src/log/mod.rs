//! The log: one journal shared by all topics and partitions, one order, one writer.

pub mod records;
