//! A transaction: messages that come into force together, or not at all.

use nix::libc::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST};

use super::{Element, Family, SUBSYSTEM, Table, Writer, message};

/// The most bytes of elements in one message: a list of them is one attribute, whose length has
/// 16 bits.
const MAX_LIST_BYTES: usize = 32 * 1024;

/// `NFNL_MSG_BATCH_BEGIN` and `…_END`.
const BEGIN: u16 = 16;
const END: u16 = 17;

/// Where a message's flags are.
const FLAGS_OFFSET: usize = 6;

/// Messages, with the numbers that the kernel's answers name them by.
pub(crate) struct Batch {
    writer: Writer,
    first: u32,
    table: String,
    /// What each message does, for errors.
    steps: Vec<String>,
    last_start: usize,
}

impl Batch {
    /// An empty one on the tables of this name, whose messages are numbered from `first`.
    pub(crate) fn new(table: &str, first: u32) -> Self {
        let mut writer = Writer::default();
        writer.message(BEGIN, NLM_F_REQUEST, first, (0, SUBSYSTEM), |_| {});
        Self { writer, first, table: table.to_owned(), steps: Vec::new(), last_start: 0 }
    }

    /// Removes a table if it is there: a delete alone would fail, so it is made first.
    pub(crate) fn remove_table(&mut self, family: Family) {
        self.new_table(family);
        let name = self.table.clone();
        self.add(
            message::DELETE_TABLE,
            0,
            family,
            || "remove the table".into(),
            |m| {
                m.put_text(1, &name);
            },
        );
    }

    /// A table with its sets, chains and rules, which must not exist.
    pub(crate) fn make_table(&mut self, table: &Table) {
        let name = self.table.clone();
        let family = table.family;
        self.new_table(family);
        for (id, set) in (1..).zip(table.sets) {
            let what = || format!("make the set {}", set.name);
            self.add(message::NEW_SET, NLM_F_CREATE, family, what, |m| set.write(m, &name, id));
        }
        for chain in &table.chains {
            let what = || format!("make the chain {}", chain.name);
            self.add(message::NEW_CHAIN, NLM_F_CREATE, family, what, |m| chain.write(m, &name));
        }
        // Rules name chains and sets, so these come first.
        for chain in &table.chains {
            for rule in &chain.rules {
                let what =
                    || format!("add to the chain {} the rule {:?}", chain.name, rule.comment);
                let flags = NLM_F_CREATE | NLM_F_APPEND;
                self.add(message::NEW_RULE, flags, family, what, |m| {
                    rule.write(m, &name, chain.name);
                });
            }
        }
    }

    /// Elements, which must not exist, in the order of their sets.
    pub(crate) fn add_elements<'a>(&mut self, elements: impl IntoIterator<Item = &'a Element>) {
        self.elements(message::NEW_ELEMENT, NLM_F_CREATE | NLM_F_EXCL, elements);
    }

    /// Elements, which must exist.
    pub(crate) fn remove_elements<'a>(&mut self, elements: impl IntoIterator<Item = &'a Element>) {
        self.elements(message::DELETE_ELEMENT, 0, elements);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The bytes to send, and the number of the last message, which is acknowledged.
    pub(crate) fn finish(mut self) -> Finished {
        let last = self.next_sequence().wrapping_sub(1);
        self.writer.acknowledge(self.last_start + FLAGS_OFFSET, NLM_F_ACK);
        self.writer.message(END, NLM_F_REQUEST, last.wrapping_add(1), (0, SUBSYSTEM), |_| {});
        Finished { bytes: self.writer.into_bytes(), first: self.first, last, steps: self.steps }
    }

    fn new_table(&mut self, family: Family) {
        let name = self.table.clone();
        self.add(
            message::NEW_TABLE,
            NLM_F_CREATE,
            family,
            || "make the table".into(),
            |m| {
                m.put_text(1, &name);
                m.put_u32(2, 0);
            },
        );
    }

    fn elements<'a>(
        &mut self,
        kind: u16,
        flags: i32,
        elements: impl IntoIterator<Item = &'a Element>,
    ) {
        let mut elements = elements.into_iter().peekable();
        while let Some(first) = elements.peek().copied() {
            let table = self.table.clone();
            let verb = if kind == message::NEW_ELEMENT { "add to" } else { "remove from" };
            let what = || format!("{verb} the set {}", first.set);
            self.add(kind, flags, first.family, what, |m| {
                m.put_text(1, &table);
                m.put_text(2, first.set);
                m.nest(3, |list| {
                    let start = list.len();
                    while let Some(element) = elements.next_if(|next| {
                        (next.family, next.set) == (first.family, first.set)
                            && list.len() - start < MAX_LIST_BYTES
                    }) {
                        element.write(list);
                    }
                });
            });
        }
    }

    fn add(
        &mut self,
        kind: u16,
        flags: i32,
        family: Family,
        what: impl FnOnce() -> String,
        body: impl FnOnce(&mut Writer),
    ) {
        let sequence = self.next_sequence();
        self.last_start = self.writer.len();
        let kind = SUBSYSTEM << 8 | kind;
        let flags = NLM_F_REQUEST | flags;
        self.writer.message(kind, flags, sequence, (family.number(), 0), body);
        self.steps.push(format!("{} of family {family:?}", what()));
    }

    /// The frame's message is `first`; the next is the first step.
    fn next_sequence(&self) -> u32 {
        let steps = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.first.wrapping_add(steps).wrapping_add(1)
    }
}

/// A transaction as it is sent.
pub(crate) struct Finished {
    pub(crate) bytes: Vec<u8>,
    pub(crate) first: u32,
    pub(crate) last: u32,
    steps: Vec<String>,
}

impl Finished {
    /// What the message of this number was to do.
    pub(crate) fn step(&self, sequence: u32) -> &str {
        let index = sequence.wrapping_sub(self.first).wrapping_sub(1);
        let step = usize::try_from(index).ok().and_then(|index| self.steps.get(index));
        step.map_or("commit the transaction", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::attribute::{Attributes, messages};

    fn element(set: &'static str, key: u32) -> Element {
        let key = key.to_be_bytes().to_vec();
        Element { family: Family::Inet, set, key, end: None, data: None }
    }

    #[test]
    fn elements_are_sent_by_set_in_messages_that_an_attribute_can_hold() {
        let many: Vec<_> = (0..10_000).map(|n| element("many", n)).collect();
        let mut batch = Batch::new("hull", 40);
        batch.remove_elements(&[element("few", 1), element("few", 2)]);
        batch.add_elements(&many);
        let finished = batch.finish();
        let sent: Vec<_> = messages(&finished.bytes).collect();
        assert_eq!((sent[0].kind, sent[0].sequence), (BEGIN, 40));
        let last = sent.last().unwrap();
        assert_eq!((last.kind, last.sequence), (END, finished.last + 1));
        let mut counts = Vec::new();
        for (at, message) in (41..).zip(&sent[1..sent.len() - 1]) {
            assert_eq!(message.sequence, at);
            let acknowledged = i32::from(message.flags) & NLM_F_ACK != 0;
            assert_eq!(acknowledged, at == finished.last, "only the last is answered");
            let attributes = Attributes::of_message(message.payload);
            assert_eq!(attributes.text(1), Some("hull"));
            counts.push((attributes.text(2).unwrap(), attributes.nested(3).unwrap().count()));
        }
        assert_eq!(counts[0], ("few", 2));
        assert!(counts.len() > 3 && counts[1..].iter().all(|(set, _)| *set == "many"));
        assert_eq!(counts[1..].iter().map(|(_, count)| count).sum::<usize>(), 10_000);
        assert_eq!(finished.step(41), "remove from the set few of family Inet");
        assert_eq!(finished.step(42), "add to the set many of family Inet");
        assert_eq!(finished.step(40), "commit the transaction");
    }
}
