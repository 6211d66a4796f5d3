//! nftables as its netlink interface has it: tables, chains, rules, sets and elements, encoded as
//! messages of a transaction (`include/uapi/linux/netfilter/nf_tables.h`; numbers are the kernel's).
//! Knows no container.

mod attribute;
mod batch;
mod expression;
mod object;

pub(crate) use attribute::{Attributes, Received, Writer, messages};
pub(crate) use batch::{Batch, Finished};
pub(crate) use expression::{Load, Rule, Verdict};
pub(crate) use object::{Chain, Element, Family, Field, Hook, Set, Table};

/// The subsystem's number, in the upper byte of each message's type.
pub(crate) const SUBSYSTEM: u16 = 10;

/// `NFT_MSG_…`: what a message does.
pub(crate) mod message {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const DELETE_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const DELETE_CHAIN: u16 = 5;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const GET_RULE: u16 = 7;
    pub(crate) const DELETE_RULE: u16 = 8;
    pub(crate) const NEW_SET: u16 = 9;
    pub(crate) const DELETE_SET: u16 = 11;
    pub(crate) const NEW_ELEMENT: u16 = 12;
    pub(crate) const GET_ELEMENT: u16 = 13;
    pub(crate) const DELETE_ELEMENT: u16 = 14;
}
